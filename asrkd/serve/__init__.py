"""A server of exported models: streams over WebSocket, files as OpenAI's clients send them, and a page."""
