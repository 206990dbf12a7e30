"""Bars, spinners and frames by value; the drawing thread on a stream that is no terminal and on one that claims to be."""

from __future__ import annotations

import io

import pytest

from olm.cli.progress import Bar, Progress, Spinner, StatusLines, eta, frame


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"),
        (49, "49s"),
        (187, "3m7s"),
        (3720, "1h2m"),
        (99 * 3600, "99h0m"),
        (360_000, "99h+"),
    ],
)
def test_eta_has_at_most_two_units(seconds: float, text: str) -> None:
    assert eta(seconds) == text


def test_a_running_bar_shows_percent_sizes_rate_and_time_left() -> None:
    bar = Bar("pulling 6a0746a1ec1a:", 4_700_000_000, 0, started=0.0)
    for second in range(1, 12):
        bar.set(second * 183_000_000, now=second * 1.5)

    line = bar.render(100, now=17.0)

    assert line.startswith("pulling 6a0746a1ec1a:  43% ▕███")
    assert line.endswith("▏ 2.0 GB/4.7 GB  122 MB/s     22s")
    assert len(line) == 99


def test_a_finished_bar_shows_only_the_total_and_keeps_its_width() -> None:
    bar = Bar("pulling 6a0746a1ec1a:", 500, 0, started=0.0)
    bar.set(700, now=1.0)

    line = bar.render(100, now=2.0)

    assert line.startswith("pulling 6a0746a1ec1a: 100% ▕██")
    assert line.rstrip().endswith("█▏  500 B")
    assert len(line) == 99


def test_a_bar_without_room_shows_what_fits() -> None:
    assert Bar("copying something long", 10, 5, 0.0).render(20, 1.0) == "copying something lo"


def test_a_spinner_turns_until_it_is_stopped() -> None:
    spinner = Spinner("writing manifest", started=0.0)

    assert spinner.render(80, 0.0) == "writing manifest ⠋ "
    assert spinner.render(80, 0.25) == "writing manifest ⠹ "

    spinner.stop(1.0)

    assert spinner.render(80, 2.0) == "writing manifest"


def test_a_frame_goes_back_up_over_the_last_one() -> None:
    assert frame(["a", "b"], 2) == "\x1b[?25l\x1b[1A\r\x1b[Ka\n\r\x1b[Kb\r\x1b[?25h"


def test_without_a_terminal_each_status_is_a_line() -> None:
    out = io.StringIO()

    with Progress(out) as progress:
        lines = StatusLines(progress)
        lines.show({"status": "pulling manifest"})
        lines.show({"status": "pulling manifest"})
        for completed in (0, 500, 1000):
            lines.show(
                {
                    "status": "pulling 6a0746a1ec1a",
                    "digest": "sha256:6a0746a1ec1aef3e",
                    "total": 1000,
                    "completed": completed,
                }
            )
        lines.show({"status": "success"})

    assert out.getvalue() == "pulling manifest\npulling 6a0746a1ec1a: 1 KB\nsuccess\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_last_lines_stay() -> None:
    out = Terminal()

    with Progress(out) as progress:
        lines = StatusLines(progress)
        lines.show({"status": "writing manifest"})
        lines.show({"status": "success"})

    last = out.getvalue().split("\x1b[?25l")[-1]
    assert last.replace("\x1b[1A", "") == "\r\x1b[Kwriting manifest\n\r\x1b[Ksuccess\r\x1b[?25h\n"


def test_cleared_progress_leaves_nothing_behind() -> None:
    out = Terminal()

    with Progress(out) as progress:
        progress.spinner("")
        progress.clear()
        progress.clear()
        progress.spinner("too late")

    assert out.getvalue().endswith("\r\x1b[2K")
    assert "too late" not in out.getvalue()


def test_more_items_than_lines_show_the_last_ones() -> None:
    out = Terminal()

    with Progress(out) as progress:
        for number in range(40):
            progress.finish(progress.spinner(f"layer {number}"))

    last = out.getvalue().split("\x1b[?25l")[-1]
    assert last.count("layer") == 23
    assert "layer 39" in last
