"""The AN4 recipe with a network of your own (examples/own_model.py), by the name `recurrent`.

    .venv/bin/python examples/an4_own_model.py --corpus-dir DIR --exp-dir exp/an4_recurrent \\
        --ensemble.kinds dnn recurrent --student.kind tdnn

The builder is in a file of its own, which needs torch alone: so the interpreter of --train.python can import it, and an
edit of the recipe's values does not train the network again.
"""

from __future__ import annotations

from dataclasses import replace

from own_model import recurrent

from asrkd.recipe.pipeline import main
from recipes.an4.recipe import CORPUS, DEFAULT

if __name__ == "__main__":
    main(replace(CORPUS, run="examples/an4_own_model.py"), DEFAULT, models={"recurrent": recurrent})
