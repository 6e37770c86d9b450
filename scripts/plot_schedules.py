"""Draw trainkit's learning-rate schedules as one SVG, for trainkit/README.md.

python scripts/plot_schedules.py > docs/schedules.svg
"""

from trainkit.training.schedule import Schedule

MAX_STEPS, PEAK = 1000, 1.0
SCHEDULES = {
    "cosine, warmup_steps = 100, minimum a tenth": Schedule("cosine", PEAK, MAX_STEPS, 0.1 * PEAK, warmup_steps=100),
    "constant, warmup_steps = 100": Schedule("constant", PEAK, MAX_STEPS, warmup_steps=100),
    "warmup_stable_decay, decay_steps = 300": Schedule(
        "warmup_stable_decay", PEAK, MAX_STEPS, warmup_steps=100, decay_steps=300
    ),
}
WIDTH, HEIGHT = 280, 150  # of one panel's axes [px]
LEFT, TOP, GAP, BOTTOM = 64, 40, 44, 48
POINTS = 200


def draw_panel(title: str, schedule: Schedule, left: int) -> list[str]:
    """Return the elements of one panel: axes, ticks, and the learning rate over the step being taken."""
    bottom = TOP + HEIGHT

    def place(step: float, rate: float) -> str:
        return f"{left + step / MAX_STEPS * WIDTH:.1f},{bottom - rate / PEAK * HEIGHT:.1f}"

    steps = [1 + round(index * (MAX_STEPS - 1) / POINTS) for index in range(POINTS + 1)]
    line = " ".join(place(step, schedule(step)) for step in steps)
    elements = [
        f'<text x="{left + WIDTH / 2:.0f}" y="{TOP - 16}" class="title">{title}</text>',
        f'<polyline class="axis" points="{left},{TOP} {left},{bottom} {left + WIDTH},{bottom}"/>',
        f'<polyline class="rate" points="{line}"/>',
        f'<text x="{left + WIDTH / 2:.0f}" y="{bottom + 38}">optimizer step</text>',
    ]
    for step in (0, MAX_STEPS // 2, MAX_STEPS):
        x = left + step / MAX_STEPS * WIDTH
        elements.append(f'<line class="axis" x1="{x:.0f}" x2="{x:.0f}" y1="{bottom}" y2="{bottom + 4}"/>')
        elements.append(f'<text x="{x:.0f}" y="{bottom + 18}">{step}</text>')
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * HEIGHT
        elements.append(f'<line class="axis" x1="{left - 4}" x2="{left}" y1="{y:.0f}" y2="{y:.0f}"/>')
        elements.append(f'<text x="{left - 8}" y="{y + 4:.0f}" class="tick">{share:g}</text>')
    return elements


def draw_schedules() -> str:
    """Return the whole picture."""
    width = LEFT + len(SCHEDULES) * (WIDTH + GAP)
    height = TOP + HEIGHT + BOTTOM
    elements = [f'<rect width="{width}" height="{height}" fill="white"/>']
    middle = TOP + HEIGHT // 2
    elements.append(f'<text transform="translate(18 {middle}) rotate(-90)">learning rate / max_learning_rate</text>')
    for index, (title, schedule) in enumerate(SCHEDULES.items()):
        elements += draw_panel(title, schedule, LEFT + index * (WIDTH + GAP))
    style = (
        "text{font:12px sans-serif;fill:#333;text-anchor:middle}.title{font-weight:bold}.tick{text-anchor:end}"
        ".axis{stroke:#888;fill:none}.rate{stroke:#1f5fa8;stroke-width:2;fill:none}"
    )
    body = "\n".join(elements)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f"<title>Learning-rate schedules</title>\n<style>{style}</style>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    print(draw_schedules(), end="")
