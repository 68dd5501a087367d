"""The comparison's table, against means and deviations computed by hand."""

import io

import pytest
from rich.console import Console

from vitdfq.reports import tables
from vitdfq.reports.tables import FittingTable, comparison_table, synthetic_notes

EMPTY = dict.fromkeys(tables.COLUMNS)


def content(seeds=(0, 1, 2), rows=()):
    return {
        "bits": "w4a4",
        "seeds": list(seeds),
        "teacher": {"name": "zoo:vit", "top1": 91.449, "num_images": 1000},
        "rows": [{"title": "noise", "uses_data": False, "pictures": ["grids/noise.png"], **row} for row in rows],
    }


def test_mean_and_sample_standard_deviation():
    values = [(90.0, 10.0), (93.0, None), (96.0, 14.0)]
    row = tables.summarize({**EMPTY, "top1": top1, "logits_sqnr_db": sqnr} for top1, sqnr in values)
    assert row["n"] == 3 and row["mean"]["top1"] == 93 and row["sd"]["top1"] == pytest.approx(3)  # √((9 + 0 + 9) / 2)
    assert row["mean"]["logits_sqnr_db"] == 12 and row["sd"]["logits_sqnr_db"] == pytest.approx(8**0.5)  # of the two values
    assert row["mean"]["diversity"] is None and row["sd"]["diversity"] is None and row["error"] is None


def test_failed_cells_are_left_out():
    row = tables.summarize([{**EMPTY, "top1": 50.0}, {"error": "first"}, {"error": "second"}])
    assert (row["n"], row["mean"]["top1"], row["sd"]["top1"], row["error"]) == (1, 50, None, "first")
    assert tables.summarize([{"error": "x"}])["mean"]["top1"] is None


@pytest.mark.parametrize(
    ("value", "sd", "digits", "text"),
    [
        (90.567, 0.123, 2, "90.57 ± 0.12"),
        (90.567, None, 2, "90.57"),
        (None, None, 2, ""),
        (32.0, 0.0, 0, "32"),
        (0.0, 0.0, 1, "0.0 ± 0.0"),
    ],
)
def test_numbers_are_formatted_with_their_deviation(value, sd, digits, text):
    assert tables.format_number(value, sd, digits) == text


def test_every_line_of_markdown_has_a_cell_for_each_column():
    row = tables.summarize([{**EMPTY, "top1": 90.0, "num_images": 8}, {**EMPTY, "top1": 91.0, "num_images": 8}])
    failed = tables.summarize([{"error": "lr [0.1] too large"}])
    page = tables.markdown(content(rows=[row, {"title": "bad", "uses_data": True, **failed, "pictures": []}]))
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(tables.COLUMNS) + 3}
    assert lines[2].startswith("| (teacher, float32) |  |  |  | 91.45 |") and lines[3].startswith(
        "| noise | 2 |  |  | 90.50 ± 0.71 |  | 8 |"
    )
    assert page.startswith("# zoo:vit: W4A4 on 1,000 images, seeds 0, 1, 2\n")
    assert "bad failed: lr [0.1] too large" in page and "uses data" in page and "![grids/noise.png](grids/noise.png)" in page
    assert "### bad" not in page


def test_kl_and_agreement_come_before_top1():
    assert list(tables.COLUMNS)[:3] == ["kl", "agreement", "top1"]
    metrics = {"teacher": {"top1": 50.0, "num_images": 4}, "student": {"top1": 50.0}}
    assert list(tables.run_columns(metrics)) == ["agreement", "kl", "top1", "top5", "logits_sqnr_db"]
    row = tables.summarize({**EMPTY, "kl": kl, "agreement": agreement} for kl, agreement in [(0.01, 90.0), (0.03, 94.0)])
    page = tables.markdown(content(rows=[row]))
    assert "| calibrated on | n | KL | agreement % | top-1 % |" in page
    assert "| noise | 2 | 0.02000 ± 0.01414 | 92.00 ± 2.83 |" in page and "- sorted by KL, " in page


def test_rows_are_ranked_by_their_mean_kl():
    kl_of = {"far": (0.3, 0.5), "near": (0.1, 0.2), "exact": (0.0, 0.0), "real": (0.05, 0.05), "failed": None, "failed too": None}
    rows = [
        {
            **tables.summarize([{**EMPTY, "kl": value} for value in values] if values else [{"error": "x"}]),
            "title": title,
            "uses_data": title == "real",
        }
        for title, values in kl_of.items()
    ]
    assert [row["title"] for row in tables.ranked(rows)] == ["exact", "near", "far", "failed", "failed too", "real"]


def test_rows_of_features_keep_their_order():
    columns = tables.columns_of("features", "knn")
    rows = [
        {**tables.summarize([dict.fromkeys(columns, value)], columns), "title": title, "uses_data": title == "real"}
        for title, value in [("b", 0.5), ("a", 0.1), ("c", 0.9), ("real", 0.0)]
    ]
    assert tables.ranked(rows) == rows
    assert "sorted by KL" not in tables.notes(content(rows=rows))


def test_brackets_in_an_error_are_printed():
    from rich.console import Console

    failed = tables.summarize([{"error": "lr [red] too large"}])
    console = Console(width=200)
    with console.capture() as captured:
        console.print(comparison_table(content(seeds=[4], rows=[failed])))
    assert "lr [red] too large" in captured.get() and "seed 4" in captured.get() and "no spread is known" in captured.get()


def test_a_comparison_without_labels_says_so():
    row = tables.summarize([{**EMPTY, "agreement": 90.0, "num_images": 8}])
    unlabeled = content(seeds=[0], rows=[row])
    unlabeled["teacher"]["top1"] = None
    page = tables.markdown(unlabeled)
    assert "| (teacher, float32) |  |  |  |" in page and "- the images have no labels: agreement, KL and SQNR need none" in page


def test_the_table_of_a_run_shows_what_was_measured():
    from rich.console import Console

    scores = {"top1": None, "top5": None, "num_images": 6, "agreement": 90.0, "kl": 0.00123, "logits_sqnr_db": 20.0}
    metrics = {
        "seed": 0,
        "teacher": {"name": "zoo:vit", "top1": None, "top5": None, "num_images": 6},
        "student": scores | {"weight_bits": 8, "activation_bits": 8},
        "baselines": {"noise": scores},
        "synthesis": {"method": "vitdfq"},
        "size": {"float_bytes": 4_000_000, "packed_bytes": 1_000_000},
    }

    def shown() -> str:
        console = Console(width=160)
        with console.capture() as captured:
            console.print(tables.summary_table(metrics))
        return captured.get()

    assert "on 6 images without labels" in shown() and "0.0012" in shown() and "90.00" in shown() and "top-1" not in shown()
    metrics["teacher"] |= {"top1": 75.5, "top5": 90.0}
    headings = next(line for line in shown().splitlines() if "top-1 %" in line)
    assert headings.index("agreement %") < headings.index("KL") < headings.index("top-1 %") and "75.50" in shown()
    metrics["teacher"] |= {"top1": None, "num_images": None}
    assert "not evaluated" in shown() and "noise" not in shown() and "agreement" not in shown() and "1.00" in shown()


def test_dynamic_students_are_told_from_static_ones():
    scores = {"agreement": 90.0, "kl": 0.1, "logits_sqnr_db": 20.0}
    others = {"w4a16": {"dynamic": False}, "w6a6": {"dynamic": True}}
    metrics = {
        "seed": 0,
        "teacher": {"name": "zoo:vit", "top1": None, "top5": None, "num_images": 6},
        "student": scores | {"weight_bits": 4, "activation_bits": 4, "dynamic": True},
        "baselines": {"noise": scores},
        "also_bits": {bits: {"student": scores | change, "baselines": {"noise": scores}} for bits, change in others.items()},
        "synthesis": {"method": "vitdfq"},
        "size": {"float_bytes": 4_000_000, "packed_bytes": 1_000_000},
    }
    names = [row[0] for row in tables.summary_table(metrics).rows]
    assert names == ["float32", *["W4A4 dynamic"] * 2, *["W4A16"] * 2, *["W6A6 dynamic"] * 2]
    compared = content(seeds=[0])
    assert tables.title(compared | {"dynamic": True}).startswith("zoo:vit: W4A4 dynamic on 1,000 images")
    assert tables.title(compared | {"dynamic": False}) == tables.title(compared)


def test_a_student_with_bits_by_layer_is_not_named_by_the_most_frequent_ones():
    assert tables.bits_title("w2a4", dynamic=False, mixed=3.98) == "W3.98A4 mixed"
    assert tables.bits_title("w2a16", dynamic=True, mixed=4.0) == "W4A16 dynamic mixed"
    compared = content(seeds=[0]) | {"dynamic": False, "mixed": 3.98}
    assert tables.title(compared).startswith("zoo:vit: W3.98A4 mixed on 1,000 images")


@pytest.mark.parametrize("width", [240, 100, 80, 60, 40])
def test_no_number_is_cut_in_a_narrow_terminal(width):
    from rich.console import Console

    numbers = {key: 80 + index for index, key in enumerate(tables.COLUMNS)}
    cells = [{key: value + change for key, value in numbers.items()} for change in (0.0, 1.0)]
    row = tables.summarize(cells) | {"title": "real images (reference, uses data)", "uses_data": True}
    page = content(seeds=[0, 1], rows=[row])
    console = Console(width=width)
    with console.capture() as captured:
        console.print(comparison_table(page))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width and "…" not in captured.get()
    for cell in tables.text_rows(page)[2][1:]:
        assert any(cell in line for line in lines), cell


def test_a_run_in_a_narrow_terminal_keeps_its_numbers():
    from rich.console import Console

    scores = {"top1": 90.66, "top5": 99.07, "agreement": 95.12, "kl": 0.04321, "logits_sqnr_db": 12.34}
    metrics = {
        "student": scores | {"weight_bits": 4, "activation_bits": 4},
        "size": {"packed_bytes": 700_000, "float_bytes": 4_820_000},
        "synthetic": {
            "dead_leaves": {"num_images": 32, "agreement": 96.875, "logits_sqnr_db": 21.04},
            "noise": {"num_images": 32, "agreement": 88.0, "logits_sqnr_db": None},
        },
        "synthesis": {"method": "attention_sardfq"},
        "teacher": {"name": "zoo:deit", "num_images": 5000, "top1": 91.26, "top5": 99.1},
        "baselines": {},
        "seed": 0,
    }
    console = Console(width=60)
    with console.capture() as captured:
        console.print(tables.summary_table(metrics))
    notes = " ".join(captured.get().split())
    assert "32 dead_leaves images that it never saw: same class on 96.9 %, logits SQNR 21.0 dB" in notes
    assert "same class on 88.0 %, logits SQNR infinite dB" in notes
    for number in ("90.66", "99.07", "95.12", "0.04321", "12.34", "0.70", "4.82", "91.26"):
        assert number in captured.get(), number


def test_notes_are_as_wide_as_the_terminal_not_as_the_table():
    row = {"num_images": 32, "agreement": 96.875, "logits_sqnr_db": 36.94}
    table = FittingTable("t", ["bits", "MB"], [["W8A8", "1.29"]], notes=synthetic_notes({"calibration": row, "noise": row}))
    printed = io.StringIO()
    Console(width=80, file=printed).print(table)
    assert printed.getvalue().splitlines()[-3:] == [
        "the student against its teacher on synthetic images, which needs no data:",
        "  32 calibration images: same class on 96.9 %, logits SQNR 36.9 dB",
        "  32 noise images that it never saw: same class on 96.9 %, logits SQNR 36.9 dB",
    ]


@pytest.mark.parametrize(("read_by", "top1"), tables.TOP1_OF.items())
def test_the_columns_of_features_come_first_and_say_what_read_top1(read_by, top1):
    headings = [heading for heading, _ in tables.columns_of("features", read_by).values()]
    assert headings[:6] == ["images", "cosine", "relative error", "features SQNR dB", top1, "agreement %"]
    assert [heading for heading, _ in tables.columns_of("features", None).values()] == headings[:4] + headings[6:]
    assert tables.columns_of("classes", "head") == tables.COLUMNS
    scores = {"cosine": 0.9, "relative_error": 0.1, "features_sqnr_db": None, "top1": 50.0}
    metrics = {"teacher": {"top1": 50.0, "num_images": 4}, "student": scores, "read_by": read_by}
    assert list(tables.run_columns(metrics)) == ["cosine", "relative_error", "features_sqnr_db", "top1", "top5", "agreement"]
    metrics["teacher"]["top1"] = None  # agreement needs no labels
    assert list(tables.run_columns(metrics)) == ["cosine", "relative_error", "features_sqnr_db", "agreement"]
    assert list(tables.run_columns(metrics | {"read_by": None})) == ["cosine", "relative_error", "features_sqnr_db"]
