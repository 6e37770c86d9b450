"""The picture of the schedules is what the schedules are."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_picture_in_the_documentation_is_up_to_date():
    draw_schedules = runpy.run_path(str(ROOT / "scripts" / "plot_schedules.py"))["draw_schedules"]
    committed = (ROOT / "docs" / "schedules.svg").read_text(encoding="utf-8")
    assert draw_schedules() == committed, "run: python scripts/plot_schedules.py > docs/schedules.svg"


def test_the_curves_begin_low_reach_the_top_and_end_where_their_schedule_does():
    picture = (ROOT / "docs" / "schedules.svg").read_text(encoding="utf-8")
    curves = re.findall(r'class="rate" points="([^"]+)"', picture)
    heights = [[float(point.split(",")[1]) for point in curve.split()] for curve in curves]
    bottom, top = 190, 40
    assert [max(curve) > bottom - 3 and min(curve) == top for curve in heights] == [True] * 3
    assert [curve[-1] for curve in heights] == [bottom - 15, top, bottom]
