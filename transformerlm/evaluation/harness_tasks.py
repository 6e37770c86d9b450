"""Tasks of EleutherAI's harness that need no dataset: config/resources/lm_eval/*.yaml name the functions below.

The harness imports what a task file names before it looks for the model, and importing this module makes ours known.
Its own command therefore runs our checkpoints on these tasks:

    lm_eval run --model transformerlm --model_args path=runs/latest --tasks config/resources/lm_eval/story_endings.yaml
"""

from typing import Any

import datasets

import transformerlm.evaluation.harness  # noqa: F401 - registers the model
from transformerlm.evaluation.choices import story_questions


def story_endings(num_questions: int = 200, seed: int = 0, **_: Any) -> dict[str, datasets.Dataset]:
    """Return the built-in questions: which of four endings keeps a story consistent?

    num_questions, seed: from the task's `metadata`.
    """
    rows = [
        {"question": question.question, "options": list(question.options), "answer": question.answer}
        for question in story_questions(num_questions, seed)
    ]
    return {"test": datasets.Dataset.from_list(rows)}
