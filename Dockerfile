# Exported models at work on a CPU: transcribe, align, serve. Neither torch nor k2 is in it.
#
#   docker build -t asrkd .
#   docker run --rm -v "$PWD/model:/model:ro" -v "$PWD:/audio:ro" asrkd transcribe /model /audio/a.wav
#   docker run --rm -v "$PWD/model:/model:ro" -p 127.0.0.1:8000:8000 asrkd serve /model --host 0.0.0.0
FROM python:3.12-slim

# ffmpeg reads what libsndfile does not: video, m4a, wma.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE /src/
COPY asrkd /src/asrkd
RUN pip install --no-cache-dir "/src[runtime,serve]" && useradd --uid 1000 --create-home asrkd

USER 1000
WORKDIR /home/asrkd
EXPOSE 8000
ENTRYPOINT ["asrkd"]
CMD ["--help"]
