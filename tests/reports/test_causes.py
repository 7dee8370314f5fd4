"""Causes of rebuilds in the words of `why` and `history`, and artifacts found by their
ingredients."""

import json

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.cli.main import main
from sdbuild.cli.tasks import tasks
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.settings import settings
from sdbuild.reports.causes import causes, few
from sdbuild.reports.find import find
from sdbuild.reports.lineage import Lineage
from sdbuild.reports.why import WOULD_RUN, Reason, format_reasons, why
from sdbuild.store import Store
from tests.engine.chains import put


def changes(old, new, store, plain=None):
    return causes(old, new.ingredients, Lineage(store.records()), plain)


def test_a_parameter_is_reported_with_where_it_was_set(store, tmp_path):
    six = put(store, tmp_path, "palettize:unet", {"a": "6"}, params={"nbits": 6})
    four = put(store, tmp_path, "palettize:unet", {"a": "4"}, params={"nbits": 4},
               ingredients={"source": six.ingredients["source"]})

    assert changes(six, four, store, {"nbits": 6}) == ["params.nbits 6 → 4 (command line)"]
    assert changes(four, six, store, {"nbits": 6}) == ["params.nbits 4 → 6"]


def test_of_many_parameters_the_first_few_are_reported_and_how_many_more_there_are(
        store, tmp_path, capsys):
    same = {"source": {}}
    old = put(store, tmp_path, "allocate:unet", {"a": "1"}, params={"budget": {"average_bits": 4}},
              ingredients=same | {"tools": {"numpy": "1"}})
    new = put(store, tmp_path, "allocate:unet", {"a": "2"},
              params={"budget": {"bits": {f"w{number:03}": 4 for number in range(134)}}},
              ingredients=same | {"tools": {"numpy": "2"}})

    found = changes(old, new, store)

    assert len(found) == 136
    assert list(few(found)) == [
        "params.budget.average_bits 4 → none", "params.budget.bits.w000 none → 4",
        "params.budget.bits.w001 none → 4", "params.budget.bits.w002 none → 4",
        "131 more", "tool numpy 1 → 2",
    ]
    assert main(["history", "allocate:unet", "--cache", str(store.root)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_tools_and_the_version_of_the_step_are_reported_in_words(store, tmp_path):
    same = {"source": {}}
    old = put(store, tmp_path, "compile:unet", {"a": "1"},
              ingredients=same | {"tools": {"coremltools": "9.0"}})
    new = put(store, tmp_path, "compile:unet", {"a": "2"},
              ingredients=same | {"tools": {"coremltools": "9.1"}, "version": 2})

    assert changes(old, new, store) == [
        "the step itself changed, version 1 → 2", "tool coremltools 9.0 → 9.1",
    ]


def test_files_of_the_checkpoint_are_reported_by_name(store, tmp_path):
    old = put(store, tmp_path, "download:unet", {"w": "1"},
              ingredients={"source": {"unet/config.json": "1", "gone": "1", "same": "1"}})
    new = put(store, tmp_path, "download:unet", {"w": "2"},
              ingredients={"source": {"unet/config.json": "2", "more": "1", "same": "1"}})

    assert changes(old, new, store) == [
        "source gone is gone", "source more is new", "source unet/config.json changed",
    ]


def fine_tunes(store, tmp_path):
    """Two checkpoints that differ in three tensors, converted."""
    made = []
    for name, digests in (("1", {"a": "1", "b": "1", "c": "1", "d": "1"}),
                          ("2", {"a": "1", "b": "2", "c": "2", "e": "1"})):
        download = put(store, tmp_path, "download:unet", {"weights": name},
                       facts={"tensors": digests}, made_at=f"2026-01-0{name}T00:00:00+00:00")
        convert = put(store, tmp_path, "convert:unet", {"package": f"p{name}"},
                      {"checkpoint": download}, made_at=f"2026-01-0{name}T00:01:00+00:00")
        palettize = put(store, tmp_path, "palettize:unet", {"package": f"q{name}"},
                        {"package": convert}, made_at=f"2026-01-0{name}T00:02:00+00:00")
        made.append((download, convert, palettize))
    return made


def test_an_input_is_reported_by_the_tensors_that_changed(store, tmp_path):
    (_, old, _), (_, new, _) = fine_tunes(store, tmp_path)

    assert changes(old, new, store) == [
        "input checkpoint.unet: 4 tensors changed, first b"  # b, c, and d went and e came
    ]


def test_a_change_further_up_is_followed_to_its_first_cause(store, tmp_path):
    (_, _, old), (_, _, new) = fine_tunes(store, tmp_path)

    assert changes(old, new, store) == [
        "input package.unet: convert:unet, input checkpoint.unet: 4 tensors changed, first b"
    ]


def test_history_tells_what_had_changed_each_time(store, tmp_path, capsys):
    fine_tunes(store, tmp_path)

    main(["history", "convert:unet", "--cache", str(store.root)])

    first, second, cause = capsys.readouterr().out.splitlines()
    assert first.startswith("2026-01-01T00:01  convert:unet")
    assert second.startswith("2026-01-02T00:01  convert:unet")
    assert cause.strip() == "input checkpoint.unet: 4 tensors changed, first b"


def test_history_of_a_component_or_stage_as_json(store, tmp_path, capsys):
    fine_tunes(store, tmp_path)

    main(["history", "unet", "--json", "--cache", str(store.root)])

    found = json.loads(capsys.readouterr().out)["artifacts"]
    assert len(found) == 6
    assert found[0]["step"] == "download:unet"
    assert found[0]["changed"] == []
    assert all(artifact["has_content"] for artifact in found)


def test_history_of_what_was_never_made_says_so(store, tmp_path, capsys):
    fine_tunes(store, tmp_path)

    assert main(["history", "covert:unet", "--cache", str(store.root)]) == 2
    assert 'did you mean "convert:unet"?' in capsys.readouterr().err


@pytest.fixture
def records(store, tmp_path):
    put(store, tmp_path, "palettize:unet", {"a": "x" * 2000}, params={"nbits": 4},
        ingredients={"tools": {"coremltools": "8.3.0", "numpy": "2.4.6"}}, seconds=90.0,
        made_at="2025-12-31T23:00:00+00:00", facts={"parameters": 7, "deep": {"is_x": True}})
    put(store, tmp_path, "palettize:unet", {"a": "y"}, params={"nbits": None},
        ingredients={"tools": {"coremltools": "10.0"}}, made_at="2026-01-01T01:00:00+00:00")
    put(store, tmp_path, "convert:vae_decoder", {"a": "z"}, made_at="2026-02-01T01:00:00+00:00")
    return list(store.records())


@pytest.mark.parametrize("words, expected", [
    ([], [0, 1, 2]),
    (["step=palettize:unet"], [0, 1]),
    (["stage=convert"], [2]),
    (["component!=unet"], [2]),
    (["step=*:unet"], [0, 1]),
    (["params.nbits=4"], [0]),
    (["params.nbits=none"], [1]),
    (["params.nbits!=4"], [1]),
    (["params.nbits=six"], []),
    (["params.nbits!=six"], [0, 1]),
    (["params.nbits>=4"], [0]),
    (["tool.coremltools<9"], [0]),
    (["tool.coremltools>=8.3"], [0, 1]),
    (["seconds>60"], [0]),
    (["seconds>1min"], [0]),
    (["size>1k"], [0]),
    (["memory<1M"], [0, 1, 2]),
    (["made<2026-01-01"], [0]),
    (["made>=2026-01-01"], [1, 2]),
    (["made=2026-01"], [1]),
    (["made>=2026-01-01T01:00"], [1, 2]),
    (["made=2026-02-01T01:00:00+00:00"], [2]),
    (["facts.parameters>6"], [0]),
    (["facts.deep.is_x=true"], [0]),
    (["step=palettize:unet", "made>2026"], []),
    (["stage=palettize params.nbits=4"], [0]),
    (["made < 2026-01-01".replace(" ", "")], [0]),
])
def test_terms_find_what_they_say(records, words, expected):
    ordered = sorted(records, key=lambda record: record.made_at)

    assert [ordered.index(record) for record in find(records, words)] == expected


@pytest.mark.parametrize("word, message", [
    ("params.nbit=4", 'did you mean "params.nbits"'),
    ("params.nbits", "expected a field, an operator"),
    ("size>large", "expected a size such as"),
    ("made<yesterday", "expected a date such as"),
    ("made>=2026-13", "expected a date such as"),
    ("made=2026-02-30", "expected a date such as"),
    ("made=2026-02-01Tea", "expected a date such as"),
    ("params.nbits>four", "is a number, compared with 'four'"),
    ("host<h", "only = and != can compare it"),
])
def test_a_term_that_means_nothing_is_refused(records, word, message):
    with pytest.raises(RecipeError, match=message):
        find(records, [word])


def test_an_artifact_is_found_by_the_digits_of_its_key_that_are_reported(store, records, capsys):
    root = str(store.root)
    main(["find", "stage=convert", "--cache", root])
    printed = capsys.readouterr().out.split("\n")[0].split()[-1]

    assert [record.step for record in find(records, [f"key={printed}"])] == ["convert:vae_decoder"]
    assert len(find(records, [f"key!={printed}"])) == 2


def test_words_may_stand_behind_an_option(store, records, capsys):
    words = ["stage=palettize", "--json", "params.nbits=4", "--cache", str(store.root)]
    assert main(["find", *words, "tool.coremltools<9"]) == 0

    (found,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert found["ingredients"]["params"] == {"nbits": 4}


@pytest.mark.parametrize("words, printed", [
    (["why", "build", "--jsn", "quant=4"], 'unknown option --jsn; did you mean "--json"?'),
    (["du", "here"], "unexpected extra argument"),
    (["relink", "bundle"], "Missing argument 'COMPONENT'"),
])
def test_a_command_line_that_cannot_be_read_is_an_error(words, printed, capsys):
    assert main(words) == 2
    assert printed in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    ["lock", "tiny-emoji", "model=sd-1-5"], ["weight", "tiny-emoji", "unet", "a", "model=sd-1-5"],
])
def test_a_recipe_that_is_named_twice_is_refused(words, capsys):
    assert main(words) == 2

    printed = capsys.readouterr().err
    assert "model=sd-1-5: the recipe is named already: tiny-emoji" in printed


def test_one_artifact_is_reported_as_one(store, records, capsys):
    main(["find", "stage=convert", "--cache", str(store.root)])
    assert capsys.readouterr().out.endswith("\n1 artifact\n")
    main(["find", "stage=palettize", "--cache", str(store.root)])
    assert capsys.readouterr().out.endswith("\n2 artifacts\n")


def test_find_as_json_has_the_ingredients(store, records, capsys):
    assert main(["find", "params.nbits=4", "--json", "--cache", str(store.root)]) == 0

    (found,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert found["ingredients"]["params"] == {"nbits": 4}


def test_finding_nothing_has_a_status_of_its_own(store, records):
    assert main(["find", "params.nbits=8", "--cache", str(store.root)]) == 1


@pytest.mark.parametrize("seconds, time", [
    ((None, None), "2 steps would run: unknown time, "),
    ((2.0, None), "2 steps would run (1 of unknown time): about 2 s one after the other, "),
    ((2.0, 3.0), "2 steps would run: about 5 s one after the other, "),
])
def test_how_long_steps_take_is_reported_if_it_is_known(seconds, time):
    reasons = [Reason(step=f"s{i}", state=WOULD_RUN, seconds=s, peak_bytes=10**6)
               for i, s in enumerate(seconds)]

    assert time in format_reasons(reasons).splitlines()[-1]


def test_a_time_that_nobody_measured_is_said_to_be_an_estimate():
    """Without the word stands a measured cost, or that of a similar step, which is `about`."""
    costs = ({"is_measured": True}, {}, {"is_estimate": True})
    reasons = [Reason(step="s", state=WOULD_RUN, seconds=2.0, peak_bytes=10**6, **cost)
               for cost in costs]

    lines = format_reasons(reasons).splitlines()

    assert [line.partition("[")[2] for line in lines[:3]] == [
        "2.0 s, 1.0 MB memory]", "about 2.0 s, 1.0 MB memory]", "estimate: 2.0 s, 1.0 MB memory]"]
    assert lines[3].startswith("3 steps would run (1 estimated by the size of the network): about")


@pytest.mark.parametrize("task", [
    "build", "contract", "check", "generate", "report", "convert:unet"])
def test_why_tells_of_the_steps_that_doit_would_run(task, tmp_path):
    words = {"cache": str(tmp_path / "store"), "bundle": str(tmp_path / "bundle")}
    found = settings(words)
    needs = {
        ":".join(filter(None, (each["basename"], each.get("name")))): each.get("task_dep", [])
        for each in tasks(Builder(plan(found.recipe), Store(found.cache)), found)
    }
    wanted, left = set(), [task]
    while left:
        wanted.add(name := left.pop())
        left += needs[name]

    printed = {reason.step for reason in why(task, words)}
    assert printed == wanted - {"contract", "check", "generate", "report"}


def test_the_state_of_a_step_with_a_long_name_stands_apart_from_it():
    found = str(Reason(step="download:controlled_unet", state="up to date"))

    assert found == "download:controlled_unet up to date"
