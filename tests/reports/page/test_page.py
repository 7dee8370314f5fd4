"""The page of a report: it shows the figures of its JSON, and nothing in it can run or load."""

import re
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image as Pixels

from sdbuild.bundle.compatibility import Verdict
from sdbuild.bundle.rules.rule import Violation
from sdbuild.reports.page.report import (
    Cost,
    Image,
    Loss,
    Original,
    Output,
    Part,
    Report,
    Sheet,
    Variant,
)
from tests.reports.page.reading import captions, each, parsed, rows, text

HOSTILE = (
    '"><script>alert(1)</script>', "</style><img src=x onerror=alert(1)>", "{{ 7 * 7 }}",
    "$\\frac{1}{0}$ & <b>", "]]>--><svg onload=alert(1)>", "' onmouseover='alert(1)",
    "\u202egnp.exe", "𓀀" * 200, "a\0b\x1b[2J\udcff",
)

ESCAPED = {"\u202e": "\\u202e", "\0": "\\x00", "\x1b": "\\x1b", "\udcff": "\\udcff"}


def webp(level):
    file = BytesIO()
    Pixels.new("RGB", (8, 8), (level, 0, 0)).save(file, "WEBP")
    return file.getvalue()


def image(psnr_db, word, name="two", **more):
    return Image(prompt="a fox", seed=4, psnr_db=psnr_db, verdict=word, image=name,
                 **{"is_finite": True} | more)


def variant(name="fox-6bit", psnr_db=39.25, word="same", **more):
    part = Part(name="unet", models=("Unet.mlmodelc",), size_bytes=2_500_000, nbits=6, outputs=(
        Output(name="noise_pred", psnr_db=44.66, is_finite=True, floor_db=25.0),
        Output(name="other", psnr_db=None, is_finite=True, floor_db=None)))
    return Variant(**{
        "name": name, "label": name, "series": "fox", "place": f"bundles/{name}", "verdict": word,
        "accepted": "", "size_bytes": 8_765_432, "sheet": 0, "images": (image(psnr_db, word),),
        "parts": (part,), "violations": (), "hosts": (
            Verdict(host="MochiDiffusion", runs="yes", reasons=()),
            Verdict(host="Guernika", runs="no", reasons=("it does not",))),
        "losses": (Loss(component="unet", model="Unet.mlmodelc", operation="conv_27", type="conv",
                        layer="mid_block", snr_db=54.06, lost_db=10.94),),
        "costs": (Cost(step="convert:unet", seconds=3.25, peak_bytes=40_900_000,
                       size_bytes=6_100_000, made_at="2026-01-01"),),
        "licence": "mit", "sources": {"unet/model.safetensors": "sha256:c2b7"},
        "tools": {"torch": "2.13.0"}, "command": "sdbuild build model=fox quant=6", "notes": (),
    } | more)


def report(*variants):
    original = Original(prompt="a fox", seed=4, settings={"steps": 20}, image="one")
    sheet = Sheet(name="the original", is_original=True, originals=(original,))
    return Report(title="fox", sheets=(sheet,), variants=variants,
                  command="sdbuild report bundles/fox", software="sdbuild",
                  pictures={"one": webp(10), "two": webp(20)})


@pytest.mark.parametrize(("is_original", "owner"), [(True, "original"), (False, "reference")])
def test_only_images_of_the_checkpoint_in_pytorch_are_called_the_originals(is_original, owner):
    made = report(variant())

    page = replace(made, sheets=(replace(made.sheets[0], is_original=is_original),)).to_html()

    assert f"fox-6bit generates the {owner}&#39;s images." in page
    assert captions(parsed(page))[0][0] == owner


def test_the_page_shows_the_figures_of_the_json():
    made = report(variant(), variant("fox-2bit", 9.71, "broken"))
    page, figures = parsed(made.to_html()), made.to_json()

    for shown, found in zip(rows(each(page, "table")[0]), figures["variants"], strict=True):
        psnr = min(entry["psnr_db"] for entry in found["images"])
        assert shown[:4] == [found["label"], found["verdict"],
                             f"{found['size_bytes'] / 1e6:.1f} MB", f"{psnr:.1f} dB"]
    for table, found in zip(each(page, "table", "parts"), figures["variants"], strict=True):
        (part,) = found["parts"]
        named = [part["name"], f"{part['nbits']} bit", f"{part['size_bytes'] / 1e6:.1f} MB"]
        assert rows(table) == [[*named, "noise_pred", "44.7 dB", "25.0 dB"],
                               [*named, "other", "equal", "-"]]
    for table, found in zip(each(page, "table", "costs"), figures["variants"], strict=True):
        (cost,) = found["costs"]
        assert rows(table) == [[cost["step"], "3.2", "", "40.9 MB", "6.1 MB"]]
    for table, found in zip(each(page, "table", "losses"), figures["variants"], strict=True):
        (loss,) = found["losses"]
        assert rows(table) == [["unet", loss["layer"], "conv conv_27",
                                f"{loss['lost_db']:.1f} dB", "", f"{loss['snr_db']:.1f} dB"]]


@pytest.mark.parametrize(("bits", "said"), [
    ({"nbits": 8, "has_own_bits": True}, "bits of each weight"), ({"nbits": None}, "fp16"),
    ({"nbits": 8, "activations": 8}, "W8A8"),
])
def test_weights_are_told_by_their_bits(bits, said):
    part = Part(name="unet", models=("Unet.mlmodelc",), size_bytes=1, outputs=(), **bits)

    (table,) = each(parsed(report(variant(parts=(part,))).to_html()), "table", "parts")

    assert rows(table)[0][1] == said


def test_steps_that_came_with_sdbuild_are_named_without_figures():
    made = variant()
    shipped = [Cost(step=f"{kind}:unet", seconds=0.0, peak_bytes=0, size_bytes=795_836,
                    made_at="2026-01-01", is_shipped=True) for kind in ("trace", "lower")]

    page = report(replace(made, costs=(*shipped, *made.costs))).to_html()

    (table,) = each(parsed(page), "table", "costs")
    assert [row[0] for row in rows(table)] == ["convert:unet"]
    assert "came with sdbuild, and they did not run: lower:unet, trace:unet." in page
    assert "came with sdbuild" not in report(made).to_html()


def test_each_image_stands_beside_its_original_with_its_psnr_beneath():
    made = report(variant(), variant("fox-2bit", 9.71, "broken"),
                  variant("fox-4bit", None, "broken", images=(
                      image(None, "broken", "", is_finite=False),)),
                  variant("fox-fp16", None))

    assert captions(parsed(made.to_html())) == [[
        "original", "fox-6bit 39.2 dB same", "fox-2bit 9.7 dB broken", "fox-4bit NaN broken",
        "fox-fp16 equal same"]]


@pytest.mark.parametrize("changes, word, said", [
    ({}, "good", "Still good"),
    ({"word": "changed", "psnr_db": 20.0}, "changed", "Changed"),
    ({"word": "broken", "psnr_db": 9.0}, "bad", "its images are broken"),
    ({"word": "broken", "psnr_db": 9.0, "accepted": "a study"}, "changed", "accepted"),
    ({"word": "not judged", "images": (), "sheet": None}, "not judged", "Not judged"),
    ({"violations": (Violation(rule="r", level="error", what="w", where="Unet", found="a",
                               expected="b", host="Swift", otherwise="crashes"),)},
     "bad", "1 rules of hosts are broken"),
    ({"parts": (Part(name="unet", models=(), size_bytes=1, nbits=None, outputs=(
        Output(name="noise_pred", psnr_db=40.0, is_finite=True, floor_db=45.0),)),)},
     "bad", "unet.noise_pred is below its floor"),
    ({"parts": (Part(name="unet", models=(), size_bytes=1, nbits=None, outputs=(
        Output(name="noise_pred", psnr_db=None, is_finite=False, floor_db=None),)),)},
     "bad", "unet.noise_pred is below its floor"),
])
def test_the_verdict_comes_first(changes, word, said):
    made = report(variant(**changes))
    page = parsed(made.to_html())
    (banner,) = each(page, "div", "verdict")

    assert banner.get("data-verdict") == made.to_json()["verdict"] == word
    assert said in text(banner)


def test_nothing_in_the_page_can_run_or_load():
    page = parsed(report(variant(), variant("b")).to_html())

    assert each(page, "script") == []
    policy = next(m for m in each(page, "meta") if m.get("http-equiv"))
    assert policy.get("content").startswith("default-src 'none'; img-src data:;")
    for element in page.iter():
        assert not [name for name in element.attrib if str(name).startswith("on")]
        for name in ("src", "href", "action"):
            assert element.get(name, "data:").startswith(("data:image/webp;base64,", "data:"))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_comes_from_outside_is_shown_as_it_is_and_does_nothing(hostile):
    said = Verdict(host=hostile, runs="no", reasons=(hostile,))
    broken = Violation(rule="r", level="warning", what="w", where=hostile, found=hostile,
                       expected=hostile, host=hostile, otherwise=hostile)
    bad = variant(hostile, series=hostile, place=hostile, notes=(hostile,), licence=hostile,
                  sources={hostile: hostile}, tools={hostile: hostile}, command=hostile,
                  hosts=(said,), violations=(broken,),
                  images=(replace(image(20.0, "changed"), prompt=hostile),))
    made = report(bad, variant("other"))
    sheet = replace(made.sheets[0], name=hostile, originals=(
        replace(made.sheets[0].originals[0], prompt=hostile),))

    markup = replace(made, title=hostile, sheets=(sheet,), command=hostile).to_html()

    page = parsed(markup)
    assert each(page, "script") == []
    assert {e.tag.rpartition("}")[2] for e in page.iter() if isinstance(e.tag, str)} <= {
        e.tag.rpartition("}")[2] for e in parsed(made.to_html()).iter() if isinstance(e.tag, str)}
    shown = "".join(ESCAPED.get(letter, letter) for letter in hostile)
    assert text(each(page, "h1")[0]) == shown
    assert text(each(page, "pre")[0]) == shown
    assert shown in text(each(page, "dl")[0])
    assert each(page, "img")[0].get("alt") == shown


def test_the_plot_has_a_line_for_each_series_and_a_point_for_each_bundle():
    made = report(variant("a"), variant("b", 20.0, "changed", size_bytes=5_000_000),
                  variant("c", None, series="cat"),
                  variant("d", None, "broken", series="cat", images=(
                      image(None, "broken", "", is_finite=False),)))
    markup = made.to_html()
    plots = [text(plot) for plot in each(parsed(markup), "div", "plot")]

    assert len(plots) == 2
    for said in plots:
        words = said.replace("\u200b", "").split()
        assert {"a", "b", "c", "d", "fox", "cat", "same", "MB"} <= set(words)
    assert len(re.findall(r"stroke: var\(--series-1\)", markup)) >= 2
    assert len(re.findall(r"stroke: var\(--series-2\)", markup)) >= 2


def test_one_bundle_has_no_plot():
    assert each(parsed(report(variant()).to_html()), "div", "plot") == []
