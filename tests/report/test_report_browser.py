"""The page in Chromium: it shows what it was told, filters and sorts, in light and dark, on narrow screens."""

from __future__ import annotations

import pytest
from page_journals import RUN, large

from matterstack.core import events as ev
from matterstack.history.past import Past
from matterstack.report import collect, page

HOSTILE = "<img src=x onerror=acted=1></script><script>acted=1</script>"


@pytest.fixture
def written(tmp_path):
    def write(journal, **options):
        with Past(journal) as past:
            html = page(collect(past, RUN, **options)).html
        (tmp_path / "page.html").write_text(html)
        return tmp_path / "page.html"

    return write


@pytest.fixture
def small(story, written, tmp_path):
    """A run of six: prepare, then four, one of which failed twice, then bands, which failed with it."""
    story.task(0, "prepare")
    for i in range(4):
        story.task(i + 1, f"relax-{i + 7}", ["prepare"])
    story.task(5, "bands", [f"relax-{i + 7}" for i in range(4)])
    story.attempt("prepare", at=1)
    story.completed("prepare", 20)
    for i in range(3):
        story.attempt(f"relax-{i + 7}", at=21, waits=5 + 10 * i, node=f"nid{i}", profile="gpu")
        story.completed(f"relax-{i + 7}", 60 + 30 * i)
    story.attempt("relax-10", at=21, node="bad")
    story.failed("relax-10", 40, "NODE_FAIL", None)
    story.add(41, "relax-10", ev.TaskRetried())
    story.attempt("relax-10", 2, at=42, node="nid9")
    story.failed("relax-10", 300, exit_code=9, detail="diverged")
    story.failed("bands", 301, "DEPENDENCY_FAILED", None, "relax-10")
    directory = tmp_path / "logs/run/relax-10/2"
    directory.mkdir(parents=True)
    (directory / "stderr.txt").write_text("step 1\nenergy is nan\n")
    return written(story.write(), workdir=lambda _profile, job_id: tmp_path / "logs" / job_id)


def test_it_shows_states_tables_and_logs(small, browse):
    reader = browse(small)
    assert reader.text("#tiles").split() == ["0", "PENDING", "0", "RUNNING", "4", "COMPLETED", "2", "FAILED"]
    assert reader.names() == ["prepare", "relax-7", "relax-8", "relax-9", "relax-10", "bands"]
    assert reader.names("attempts").count("relax-10") == 2
    assert reader.text("#failures-count") == "2"
    reader.page.locator("#failures summary").first.click()
    assert "energy is nan" in reader.text("#failures pre")
    assert "gpu" in reader.text("#usage")


def test_filters_hold_everywhere_and_are_cleared(small, browse):
    reader = browse(small)
    reader.page.fill("#text", "RELAX nid")
    reader.until("#found", "4 of 6 tasks")
    assert reader.names() == ["relax-7", "relax-8", "relax-9", "relax-10"]
    assert "4 attempts" in reader.text("#gantt-note")
    reader.page.click("#states [data-state=FAILED]")
    assert reader.names() == ["relax-7", "relax-8", "relax-9"]
    assert reader.text("#failures") == "None."
    assert reader.page.get_attribute("#states [data-state=FAILED]", "aria-pressed") == "false"
    reader.page.click("#clear")
    reader.until("#found", "6 tasks")
    assert reader.page.input_value("#text") == ""
    reader.page.select_option("#reason", "EXIT_CODE")
    assert reader.names() == ["relax-10"]
    reader.page.click("#clear")
    reader.page.select_option("#profile", "gpu")
    assert reader.names() == ["relax-7", "relax-8", "relax-9"]
    reader.page.fill("#text", "nobody")
    reader.until("#found", "0 of 6 tasks")
    assert reader.names() == []


def test_a_reason_is_a_filter(small, browse):
    reader = browse(small)
    reader.page.click("#reasons button:has-text('NODE_FAIL')")
    assert reader.names("attempts") == ["relax-10"]
    assert reader.page.input_value("#reason") == "NODE_FAIL"


def test_columns_sort_numbers_as_numbers_and_absent_values_last(small, browse):
    reader = browse(small)

    def by(title):
        reader.page.click(f"#tasks th button:has-text('{title}')")
        return reader.names()

    assert by("Task") == ["bands", "prepare", "relax-7", "relax-8", "relax-9", "relax-10"]
    assert by("Task") == ["relax-10", "relax-9", "relax-8", "relax-7", "prepare", "bands"]
    assert reader.page.get_attribute("#tasks th:first-child", "aria-sort") == "descending"
    assert by("Ran")[0] == "relax-10"
    assert by("Ran")[-1] == "bands"
    assert reader.page.get_attribute("#tasks th:first-child", "aria-sort") == "none"


def test_a_task_opens_from_the_table_and_leads_on(small, browse):
    reader = browse(small)
    reader.page.click("#tasks button:has-text('relax-10')")
    shown = reader.text("#task")
    assert "diverged" in shown
    assert "energy is nan" in shown
    assert "NODE_FAIL" in shown
    reader.page.click("#task dd button:has-text('bands')")
    assert reader.text("#task h2") == "bands"
    reader.page.click("#task button:has-text('Close')")
    assert reader.page.is_hidden("#task")


DRAWN = """(id) => { const c = document.getElementById(id), found = new Map();
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) {
        const k = `${d[i]},${d[i + 1]},${d[i + 2]}`; found.set(k, (found.get(k) ?? 0) + 1); }
    return Object.fromEntries(found); }"""
SETTLED = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"


def colours(reader, picture):
    reader.page.evaluate(SETTLED)
    return reader.page.evaluate(DRAWN, picture)


def rgb(reader, name):
    value = reader.page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
    return ",".join(str(int(value[i : i + 2], 16)) for i in (1, 3, 5))


@pytest.mark.parametrize("picture", ["dag", "gantt", "counts"])
def test_pictures_have_the_states_in_light_and_in_dark(small, browse, picture):
    reader = browse(small)
    seen = []
    for scheme in ("light", "dark"):
        reader.page.emulate_media(color_scheme=scheme)
        drawn = colours(reader, picture)
        for state in ("COMPLETED", "FAILED"):
            assert drawn.get(rgb(reader, state), 0) > 50, (scheme, state, drawn)
        seen.append((rgb(reader, "COMPLETED"), reader.page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_the_graph_says_what_is_under_the_pointer_and_opens_it(small, browse):
    reader = browse(small)
    reader.page.evaluate(SETTLED)
    x, y = reader.page.evaluate(
        """() => { const c = document.getElementById('dag'), box = c.getBoundingClientRect();
        c.scrollIntoView({ block: 'center' }); return [box.width / 2, box.height / 2]; }"""
    )
    # The middle layer has four tasks, two above and two below the middle.
    reader.page.hover("#dag", position={"x": x, "y": y - 10})
    assert "relax-8" in reader.text("#tip")
    reader.page.click("#dag", position={"x": x, "y": y + 10})
    assert reader.text("#task h2") == "relax-9"


def test_the_graph_grows_and_comes_back(small, browse):
    reader = browse(small)
    before = colours(reader, "dag")[rgb(reader, "COMPLETED")]
    reader.page.click("#dag-out")
    assert colours(reader, "dag")[rgb(reader, "COMPLETED")] < before
    reader.page.click("#dag-all")
    assert colours(reader, "dag")[rgb(reader, "COMPLETED")] == before


@pytest.mark.parametrize("width", [320, 480, 800])
def test_a_narrow_screen_scrolls_tables_and_not_the_page(small, browse, width):
    reader = browse(small, width=width, height=640, scheme="dark")
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= width
    assert reader.page.evaluate("document.getElementById('tasks').scrollWidth") > width
    reader.page.fill("#text", "bands")
    reader.until("#found", "1 of 6 tasks")


def test_hostile_names_and_logs_are_shown_and_do_not_act(story, written, browse, tmp_path):
    story.task(0, HOSTILE)
    story.attempt(HOSTILE, at=1, job_id="9", node=HOSTILE, profile=HOSTILE)
    story.failed(HOSTILE, 9, detail=f"\x1b[2J\u202e{HOSTILE}")
    (tmp_path / "9").mkdir()
    (tmp_path / "9/stderr.txt").write_text(f"{HOSTILE}\n\x1b]0;owned\x07\u2028alert(1)\n")
    reader = browse(written(story.write(), workdir=lambda _profile, job_id: tmp_path / job_id))
    assert reader.names() == [HOSTILE]
    reader.page.locator("#failures summary").click()
    assert HOSTILE in reader.text("#failures pre")
    assert "\\x1b]0;owned\\x07" in reader.text("#failures pre")
    reader.page.click("#tasks td button")
    assert reader.text("#task h2") == HOSTILE
    assert "\\x1b[2J\\u202e" in reader.text("#task")
    reader.page.hover("#gantt", position={"x": 300, "y": 28})
    assert HOSTILE in reader.text("#tip")
    assert reader.page.evaluate("typeof acted") == "undefined"
    assert reader.page.locator("img").count() == 0


def test_ten_thousand_tasks_are_read_a_screen_at_a_time(tmp_path, written, browse):
    reader = browse(written(large(tmp_path / "journal.db")))
    assert reader.text("#tasks-count") == "10,000"
    assert len(reader.names()) < 60
    reader.page.evaluate("document.getElementById('tasks').scrollTop = 1e9")
    reader.until("#tasks tbody", "relax-09999")
    assert reader.page.locator("#tasks tbody tr:not(.space)").count() < 60
    reader.page.fill("#text", "relax-09990")
    reader.until("#found", "1 of 10,000 tasks")
    assert reader.names() == ["relax-09990-of-a-long-campaign"]
    assert set(colours(reader, "dag")) == {rgb(reader, "FAILED")}  # all others are pale
    reader.page.click("#clear")
    reader.until("#found", "10,000 tasks")
    assert {rgb(reader, "FAILED"), rgb(reader, "COMPLETED")} <= set(colours(reader, "dag"))


def test_an_empty_run_is_a_page_too(story, written, browse):
    reader = browse(written(story.write()))
    assert reader.text("#found") == "0 tasks"
    assert reader.text("#failures") == "None."
