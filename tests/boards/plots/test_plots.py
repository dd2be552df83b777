"""Figures show what is stored: each value where it belongs, and what is missing as missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib")

from gatecrash.boards.panel import Panel, arrange
from gatecrash.boards.plots.curve import curve
from gatecrash.boards.plots.heatmap import heatmap
from gatecrash.boards.plots.masks import masks
from gatecrash.boards.plots.reversed import reversed_triggers, stored_reversed
from gatecrash.boards.plots.style import save
from gatecrash.boards.plots.tradeoff import tradeoff
from gatecrash.boards.plots.triggers import TriggerExample, triggers
from gatecrash.errors import UserError
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage
from support.cells import cell

Gatecrash = Callable[..., Any]


def some() -> Panel:
    return arrange(
        [
            *(cell(attack, "none") for attack in ("none", "badnets", "blend")),
            *(cell(attack, "anp", acc=0.8, asr=0.2) for attack in ("none", "badnets")),
            cell("blend", "anp", status="failed", measures={}),
            cell("badnets", "$x^2$ <b>", acc=0.7, asr=0.4),
            cell("badnets", "detector", gives=["verdict"]),
        ]
    )


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_heatmap_has_every_mean_and_says_what_is_missing() -> None:
    figure = heatmap(some(), ["asr", "der"])
    asr, rating = figure.axes[:2]
    shown = {(round(text.get_position()[0]), round(text.get_position()[1])): text.get_text() for text in asr.texts}
    assert [label.get_text() for label in asr.get_yticklabels()] == ["badnets", "blend"]
    columns = [label.get_text() for label in rating.get_xticklabels()]
    assert columns == ["none", "anp", "$x^2$ <b>", "detector"]
    assert [shown[column, 0] for column in range(4)] == ["100.0", "20.0", "40.0", "100.0"]
    assert [shown[column, 1] for column in range(4)] == ["100.0", "failed", "missing", "missing"]
    # (0.8 ASR drop - 0.1 ACC drop + 1) / 2
    assert "85.0" in [text.get_text() for text in rating.texts]
    with pytest.raises(UserError, match="no cell has any of these measures"):
        heatmap(arrange([cell("none", "none")]), ["asr"])


def test_a_heatmap_of_many_defenses_has_a_row_for_each_with_its_whole_name() -> None:
    sweep = [
        cell(
            "badnets",
            "zap",
            0,
            asr=drop,
            key=f"zap-{drop}",
            defense=[Stage(name="zap", config={"drop": drop, "which-is-a-lot": drop})],
        )
        for drop in (index / 20 for index in range(15))
    ]
    figure = heatmap(arrange([cell("none", "none"), cell("badnets", "none"), *sweep]), ["asr", "der"])
    asr, rating = figure.axes[:2]
    names = [label.get_text() for label in asr.get_yticklabels()]
    assert names[:2] == ["none", "drop=0, which-is-a-lot=0"]
    assert names[-1] == "drop=0.7, which-is-a-lot=0.7"
    assert asr.get_ylabel() == "zap"
    assert [label.get_text() for label in rating.get_yticklabels()] == []
    assert [label.get_text() for label in rating.get_xticklabels()] == ["badnets"]
    shown = {(round(text.get_position()[0]), round(text.get_position()[1])): text.get_text() for text in asr.texts}
    assert [shown[0, row] for row in range(16)] == ["100.0", *(f"{5 * index:.1f}" for index in range(15))]


def test_one_colour_is_good_in_every_map_and_what_did_not_land_is_hatched() -> None:
    weak = [cell("weak", defense, asr=asr, before=(0.9, 0.3), floor=0.1) for defense, asr in (("none", 0.3), ("anp", 0.0))]
    partly = [cell("partly", "none", seed, before=(0.9, asr)) for seed, asr in enumerate((1.0, 0.2, 0.2))]
    cells = [cell("none", "none"), cell("badnets", "none"), cell("badnets", "anp", acc=0.8, asr=0.0), *weak, *partly]
    figure = heatmap(arrange(cells))
    asr, acc, der = figure.axes[:3]
    assert asr.images[0].get_array()[0].tolist() == [0, 100]  # ASR 100 is the worst, ASR 0 the best
    assert acc.images[0].get_array()[1].tolist() == [90, 80]
    assert [label.get_text() for label in asr.get_yticklabels()] == ["badnets", "weak", "partly (1 of 3 landed)"]
    assert len({image.cmap.name for axis in (asr, acc, der) for image in axis.images}) == 1
    hatched = {axis: [patch.get_xy() for patch in axis.patches if patch.get_hatch()] for axis in (asr, acc, der)}
    assert hatched == {asr: [(-0.5, 0.5), (0.5, 0.5)], acc: [], der: [(0.5, 0.5)]}
    assert texts(figure)[-1] == "Hatched: the attack did not land.\ndigits, small-cnn, 1 epoch; seeds 0, 1, 2."


def test_every_figure_says_data_set_model_and_seeds_and_cuts_no_name(tmp_path: Path) -> None:
    longest = "-".join(f"part{number}" for number in range(30))
    results = [cell("badnets", "none"), cell("badnets", longest, asr=0.1, trajectory=steps((0, 0.9, 1.0), (2, 0.9, 0.5)))]
    accused = accusing("badnets", 2, tmp_path)
    drawings = [heatmap(arrange(results)), tradeoff(arrange(results)), curve(arrange(results), longest)]
    drawings += [masks(arrange([masked(longest, {0.1: True}, {})])), reversed_triggers(arrange([accused]), tmp_path)]
    for figure in drawings:
        said = texts(figure)
        assert [text for text in said if "digits, small-cnn, 1 epoch; seed 0." in text], said
        assert not [text for text in said if "…" in text], said
    for figure in drawings[:4]:
        assert [text for text in texts(figure) if longest in text.replace("\n", "")]


def test_a_tradeoff_has_a_mark_for_each_defense_that_repairs() -> None:
    figure = tradeoff(some())
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["no defense", "anp", "$x^2$ <b>"]
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].get_lines() if line.get_marker() in "os^"]
    assert marks == [pytest.approx((90, 100)), pytest.approx((80, 20)), pytest.approx((70, 40))]
    with pytest.raises(UserError, match="no defense has met an attack that landed"):
        tradeoff(arrange([cell("badnets", "none"), cell("none", "anp")]))


def steps(*values: tuple[int, float, float]) -> list[dict[str, Any]]:
    return [{"params": {"pruned": p, "holdout": h, "chosen": int(p == 2)}, "acc": h, "asr": asr, "ra": None} for p, h, asr in values]


def test_a_curve_goes_along_what_grows_on_the_way() -> None:
    way = steps((0, 0.9, 1.0), (2, 0.95, 0.5), (4, 0.5, 0.0))
    cells = [cell("none", "prune", trajectory=[step | {"asr": None} for step in way]), cell("badnets", "prune", trajectory=way)]
    figure = curve(arrange(cells), "prune")
    accuracy, success = figure.axes
    assert accuracy.get_xlabel() == "pruned"
    benign, attacked = success.get_lines()[0], success.get_lines()[-1]
    assert len(benign.get_xdata()) == 0
    assert (list(attacked.get_xdata()), list(attacked.get_ydata())) == ([0, 2, 4], [100, 50, 0])
    assert [line.get_color() for line in accuracy.get_lines()] == [line.get_color() for line in success.get_lines()]
    assert success.collections[-1].get_offsets().tolist() == [[2, 50]]
    with pytest.raises(UserError, match=r"--x prund: prune has no such .*; did you mean 'pruned'\?"):
        curve(arrange(cells), "prune", "prund")


def test_a_sweep_shows_means_over_seeds_in_the_options_order() -> None:
    cells = [
        cell("badnets", "anp", seed, asr=asr + 0.02 * seed, defense=[Stage(name="anp", config={"threshold": threshold, "n": 1})])
        for threshold, asr in ((0.4, 0.0), (0.1, 0.8), (0.2, 0.5))
        for seed in (0, 1)
    ]
    figure = curve(arrange(cells), "anp")
    assert texts(figure)[-1] == "anp: means and 95% intervals over seeds\ndigits, small-cnn, 1 epoch; seeds 0, 1."
    line = figure.axes[1].get_lines()[0]
    assert list(line.get_xdata()) == [0.1, 0.2, 0.4]
    assert list(line.get_ydata()) == pytest.approx([81, 51, 1])
    with pytest.raises(UserError, match="no trajectory and no option was swept"):
        curve(arrange(cells[:2]), "anp")


def test_poison_rates_stand_on_a_logarithmic_axis_in_percent() -> None:
    def swept(*rates: float) -> Panel:
        attacks = [Stage(name="badnets", config={"poison_rate": rate}) for rate in rates]
        return arrange([cell("badnets", "anp", attack=attack, key=str(attack), victim_key=str(attack)) for attack in attacks])

    axis = curve(swept(0.001, 0.1, 0.01), "anp").axes[1]
    assert (axis.get_xscale(), list(axis.get_lines()[0].get_xdata())) == ("log", [0.001, 0.01, 0.1])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.1", "1", "10"]
    assert axis.get_xlabel() == "poisoned share of the training set, %"
    axis = curve(swept(0.0, 0.01, 0.1), "anp").axes[1]
    assert (axis.get_xscale(), [label.get_text() for label in axis.get_xticklabels()]) == ("symlog", ["0", "1", "10"])


def test_options_that_read_alike_are_lines_of_their_own() -> None:
    configs = [{"threshold": threshold, "by": by} for threshold in (0.1, 0.2) for by in (1, "1")]
    cells = [cell("badnets", "anp", defense=[Stage(name="anp", config=config)], key=str(config)) for config in configs]
    assert len(curve(arrange(cells), "anp", "threshold").axes[0].get_lines()) == 2


def test_an_attacks_and_a_defenses_option_of_one_name_are_two_options() -> None:
    cells = [
        cell(
            "badnets",
            "anp",
            asr=asr,
            attack=Stage(name="badnets", config={"epochs": epochs}),
            defense=[Stage(name="anp", config={"epochs": 9})],
            key=str(epochs),
            victim_key=str(epochs),
        )
        for epochs, asr in ((1, 0.5), (2, 0.8))
    ]
    axis = curve(arrange(cells), "anp", "attack.epochs").axes[1]
    assert list(axis.get_lines()[0].get_xdata()) == [1, 2]
    assert list(axis.get_lines()[0].get_ydata()) == pytest.approx([50, 80])


def test_a_faint_trigger_is_magnified_as_far_as_it_goes() -> None:
    clean = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    faint = clean.clone()
    faint[0, 1, 2] = 90  # 255 // 10 = 25
    change, factor = TriggerExample("blend", clean, faint, {}).difference
    assert factor == 25
    assert change[0, 1, 2] == pytest.approx(250 / 255)
    assert change.sum() == pytest.approx(250 / 255)
    assert TriggerExample("none", clean, clean, {}).difference[1] == 1
    plain = texts(triggers(some(), [TriggerExample("blend", clean, faint, {"psnr": 30.0, "ssim": None})]))
    assert "PSNR 30.0 dB" in plain
    shown = texts(triggers(some(), [TriggerExample("blend", clean, faint, {"psnr": 31.24, "ssim": 0.9876})]))
    assert {"blend", "PSNR 31.2 dB (good), SSIM 0.988", "difference × 25"} <= set(shown)


def test_figures_are_the_same_file_each_time_and_nothing_is_clipped(tmp_path: Path) -> None:
    from PIL import Image

    first = [path.read_bytes() for path in save(tradeoff(some()), tmp_path / "one")]
    again = [path.read_bytes() for path in save(tradeoff(some()), tmp_path / "two")]
    assert first == again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "one.svg", "two.png", "two.svg"]
    for number, figure in enumerate((heatmap(some(), ["acc"]), tradeoff(some()))):
        (path,) = save(figure, tmp_path / f"{number}.png")
        image = Image.open(path).convert("L")
        width, height = image.size
        border = [image.getpixel((x, y)) for x in range(width) for y in (0, height - 1)]
        border += [image.getpixel((x, y)) for y in range(height) for x in (0, width - 1)]
        assert set(border) == {255}


def test_labels_are_beside_each_other_and_inside_the_picture() -> None:
    """Titles and legend neither overlap nor leave the figure, however long the names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    longest = "a-name-that-goes-on-and-on-and-on-until-it-does-not-fit"
    cells = [cell("badnets", "none"), *(cell("badnets", f"{number}-{longest}", asr=0.1 * number) for number in range(9))]
    figure = tradeoff(arrange(cells))
    FigureCanvasAgg(figure).draw()
    legend, title = figure.axes[0].get_legend().get_window_extent(), figure._suptitle.get_window_extent()
    assert not legend.overlaps(title)
    assert not legend.overlaps(figure.axes[0].get_window_extent())
    assert legend.x1 <= figure.bbox.x1
    assert legend.y0 >= 0
    figure = heatmap(arrange([cell("badnets", "none"), cell("badnets", "anp")]))
    FigureCanvasAgg(figure).draw()
    *maps, bar = figure.axes
    assert not [one for one in maps if one._left_title.get_window_extent().overlaps(bar.get_window_extent())]


def accusing(attack: str, classes: int, root: Path, /, **fields: Any) -> Result:
    """A cell that kept a mask and a pattern of 8x8 pixels for each class, and accuses class 1."""
    from PIL import Image

    figures = {f"{kind}-{label}": f"{attack}/{kind}-{label}.png" for kind in ("mask", "pattern") for label in range(classes)}
    (root / attack).mkdir(exist_ok=True)
    for name, path in figures.items():
        Image.new("L" if name.startswith("mask") else "RGB", (8, 8), 128 if name.startswith("mask") else (255, 0, 51)).save(root / path)
    rows = [{"class": one, "name": f"sign {one}", "norm": 10.25, "anomaly_index": -0.01, "accused": one == 1} for one in range(classes)]
    return cell(attack, "cleanse", figures=figures, tables={"classes": rows}, **fields)


def test_reversed_triggers_are_shown_with_norm_index_and_accusation(tmp_path: Path) -> None:
    accused = accusing("badnets", 12, tmp_path, attack=Stage(name="badnets", config={"target": 3}))
    assert stored_reversed(accused, tmp_path)[11].masked[0, 0].tolist() == pytest.approx([128 / 255, 0, 128 / 255 * 0.2])
    figure = reversed_triggers(arrange([accused]), tmp_path)
    shown = texts(figure)
    assert [shown.count(one) for one in ("mask", "11: sign 11", "L1 10.2\nindex 0.0", "accused")] == [2, 1, 12, 1]
    assert "3: sign 3\n(target)" in shown
    (axis,) = figure.axes
    # ten classes of three tiles in the first line, two in the second
    tops = sorted({round(image.get_extent()[3], 2) for image in axis.images})
    assert (len(axis.images), len(tops)) == (36, 6)
    frame = max(axis.patches, key=lambda patch: patch.get_height())
    (accusation,) = [text for text in axis.texts if text.get_text() == "accused"]
    assert (frame.get_height(), frame.get_x() + 0.5) == (3, accusation.get_position()[0])


def test_of_many_classes_the_accused_the_target_and_the_smallest_are_drawn(tmp_path: Path) -> None:
    many = accusing("badnets", 43, tmp_path, attack=Stage(name="badnets", config={"target": 42}))
    rows = [row | {"norm": abs(20 - row["class"]) + 5} for row in many.tables["classes"]]
    shown = texts(reversed_triggers(arrange([many.model_copy(update={"tables": {"classes": rows}})]), tmp_path))
    names = [text.replace("\n", " ") for text in shown if ": sign" in text]
    assert names == ["1: sign 1", *(f"{one}: sign {one}" for one in range(18, 23)), "42: sign 42 (target)"]
    assert [text for text in shown if "(7 of 43 classes: accused, target, smallest masks)" in text.replace("\n", " ")]


def test_a_pdf_is_one_and_the_same_each_time_and_other_formats_are_refused(tmp_path: Path) -> None:
    (path,) = save(tradeoff(some()), tmp_path / "x.pdf", "digest")
    first = path.read_bytes()
    assert (path.name, first[:5]) == ("x.pdf", b"%PDF-")
    assert save(tradeoff(some()), tmp_path / "y.PDF", "digest")[0].read_bytes() == first
    with pytest.raises(UserError, match=r"x\.jpg: no figure is written as \.jpg; use \.png, \.svg, \.pdf or no suffix"):
        save(tradeoff(some()), tmp_path / "x.jpg")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.pdf", "y.PDF"]


def test_reversed_triggers_are_those_of_one_defense(tmp_path: Path) -> None:
    cells = [accusing("badnets", 2, tmp_path), accusing("blend", 2, tmp_path), cell("none", "cleanse"), cell("badnets", "anp")]
    headers = [text for text in texts(reversed_triggers(arrange(cells), tmp_path)) if "seed 0:" in text]
    assert headers == ["badnets, seed 0: cleanse", "blend, seed 0: cleanse"]
    one = texts(reversed_triggers(arrange(cells), tmp_path, "cleanse", "blend"))
    assert "badnets, seed 0: cleanse" not in one
    for chosen, said in {
        ("anp", None): "no result of anp has reversed triggers",
        ("clense", None): "no results of the defense 'clense'; did you mean 'cleanse'",
        (None, "none"): "no result on none has reversed triggers",
    }.items():
        with pytest.raises(UserError, match=said):
            reversed_triggers(arrange(cells), tmp_path, *chosen)


def masked(attack: str, values: dict[float, bool], tried: dict[float, int]) -> Result:
    steps = [{"params": {"threshold": threshold, "pruned": count}, "acc": 0.9, "asr": 0.1} for threshold, count in tried.items()]
    return cell(attack, "anp", tables={"neurons": [{"mask": mask, "pruned": cut} for mask, cut in values.items()]}, trajectory=steps)


def test_masks_are_counted_and_the_threshold_is_where_the_defense_cut() -> None:
    values = {0.01: True, 0.31: True, 0.32: True, 0.52: False, 0.99: False}
    figure = masks(arrange([masked("badnets", values, {0.0: 0, 0.35: 3, 0.5: 3, 0.55: 4}), masked("blend", {0.9: False}, {})]))
    first, second = figure.axes
    assert first.get_title() == "badnets\nseed 0: 3 of 5 pruned"
    bars = {(round(bar.get_x(), 3), bar.get_facecolor()[:3]): bar.get_height() for bar in first.patches if bar.get_height()}
    colours = dict.fromkeys(colour for _, colour in bars)
    assert len(colours) == 2
    assert {x: height for (x, _), height in bars.items()} == {0.0: 1, 0.3: 2, 0.5: 1, 0.975: 1}
    (line,) = first.get_lines()
    assert list(line.get_xdata()) == [0.5, 0.5]  # the largest that prunes these
    assert not second.get_lines()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["pruned", "kept", "threshold"]
    with pytest.raises(UserError, match="no result has masks of neurons"):
        masks(arrange([cell("badnets", "none")]))


@pytest.mark.parametrize("classes", [2, 43])
def test_no_text_of_reversed_triggers_and_masks_is_cut_off_or_covered(tmp_path: Path, classes: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    longest = "an-attack-whose-name-goes-on-and-on-and-on-and-on"
    cells = [masked(f"{number}-{longest}", {0.1: True, 0.9: False}, {0.5: 1}) for number in range(4)]
    for figure in (reversed_triggers(arrange([accusing(longest, classes, tmp_path)]), tmp_path), masks(arrange(cells))):
        FigureCanvasAgg(figure).draw()
        said_texts = [text for text in figure.findobj(Text) if any(map(str.isalpha, text.get_text()))]  # no ticks
        extents = [(text.get_text(), text.get_window_extent()) for text in said_texts]
        for said, extent in extents:
            assert extent.x0 >= 0, said
            assert extent.x1 <= figure.bbox.x1, said
            assert extent.y0 >= 0, said
            assert extent.y1 <= figure.bbox.y1, said
        for index, (said, extent) in enumerate(extents):
            covered = [other for other, place in extents[:index] if extent.shrunk(0.9, 0.9).overlaps(place)]
            assert covered == [], said


def test_plots_of_a_run_through_the_command_line(
    gatecrash: Gatecrash, small_grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = small_grid(recipe={"preset": "tiny", "epochs": 6, "batch_size": 16}, defenses=["none"])
    assert gatecrash("run", grid, "--store", "s", "--executor", "serial", "--quiet").code == 0
    assert gatecrash("plot", "heatmap", "--store", "s").out.split() == ["heatmap.png", "heatmap.svg"]
    assert gatecrash("plot", "triggers", "--store", "s", "--output", "t.png").out.split() == ["t.png"]
    for arguments, said in {
        ("tradeoff",): "no defense has met an attack that landed",
        ("curve", "--defense", "anp"): "no finished cell of a defense 'anp'",
        ("reversed",): "no result has reversed triggers",
        ("masks", "--attack", "badnet"): "no results of the attack 'badnet'; did you mean 'badnets'?",
        ("heatmap", "--grid", "smal"): "no results of a grid 'smal'; did you mean 'small'?",
        ("heatmap", "--output", "nowhere/x.png"): "cannot write nowhere/x.png",
    }.items():
        called = gatecrash("plot", arguments[0], "--store", "s", *arguments[1:])
        assert (called.code, called.err.startswith(f"error: {said}")) == (2, True), called.err


def test_numbers_of_a_heatmap_can_be_read_on_every_colour() -> None:
    from matplotlib import colormaps, colors

    from gatecrash.boards.plots.heatmap import GOOD_IS_LIGHT, _ink

    def light(colour: Any) -> float:
        parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colors.to_rgb(colour)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for goodness in range(101):
        dark, bright = sorted((light(colormaps[GOOD_IS_LIGHT](goodness / 100)), light(_ink(goodness))))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, goodness  # WCAG AA
