"""transformerlm-lm-eval: EleutherAI's lm_eval command, which also knows our checkpoints.

The harness finds models in a registry that is filled by imports, so this imports ours and hands over: every argument is
lm_eval's own.
"""

import sys

from cli.command import report


def main() -> int:
    """Register the model and run the harness; returns its exit code."""
    try:
        from lm_eval.__main__ import cli_evaluate
    except ModuleNotFoundError as error:
        return report(
            [f"lm-evaluation-harness is not complete here ({error}); install it: uv sync --extra lm-eval"], exit_code=2
        )
    from transformerlm.evaluation import harness

    assert harness.TransformerLMHarness, "importing it registers the model"
    try:
        cli_evaluate()
    except ValueError as error:  # such as a checkpoint that is not there
        return report(str(error).splitlines())
    return 0


if __name__ == "__main__":
    sys.exit(main())
