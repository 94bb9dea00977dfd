"""From the data set's labels to classes: one for binary and multiclass, any number for multilabel, and no silent guess."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from PIL import Image

from edge_agent.errors import ConfigError
from edge_agent.imaging.preprocess import InputContract
from edge_agent.records import Task
from model_build.config import SourceConfig, load_build_config
from model_build.data.classes import choose_classes
from model_build.data.example import Example
from model_build.data.images import ImageSet, read_images
from model_build.data.layouts.reading import list_source

FINDINGS = SourceConfig(layout="manifest", labels=["mass", "nodule"], title="t", licence="l", attribution="a", negative=["healthy"])
CONTRACT = InputContract(rows=16, columns=16)


def example(*labels: str) -> Example:
    return Example(Path("x.png"), labels, "p", "list.csv line 4")


class TestMultilabel:
    def test_an_image_has_any_number_of_findings(self) -> None:
        assert choose_classes(example("nodule", "mass"), FINDINGS, "multilabel") == (0, 1)
        assert choose_classes(example("nodule"), FINDINGS, "multilabel") == (1,)
        assert choose_classes(example(), FINDINGS, "multilabel") == ()
        assert choose_classes(example("healthy"), FINDINGS, "multilabel") == ()

    def test_what_is_left_out_leaves_the_image_without_a_finding(self) -> None:
        source = msgspec.structs.replace(FINDINGS, leave_out=["hernia"], merge={"lump": "mass"})
        assert choose_classes(example("hernia"), source, "multilabel") == ()
        assert choose_classes(example("hernia", "lump", "mass"), source, "multilabel") == (0,)

    def test_no_finding_is_known_in_the_layout_that_has_it(self) -> None:
        nih = msgspec.structs.replace(FINDINGS, layout="nih", negative=[])
        assert choose_classes(example("No Finding"), nih, "multilabel") == ()
        with pytest.raises(ConfigError, match=r"line 4: the label 'No Finding' is none of .* or source\.negative"):
            choose_classes(example("No Finding"), FINDINGS, "multilabel")

    def test_an_unknown_label_and_a_contradiction_name_the_line(self) -> None:
        with pytest.raises(ConfigError, match=r"list\.csv line 4: the label 'masss' is none of source\.labels"):
            choose_classes(example("masss"), FINDINGS, "multilabel")
        with pytest.raises(ConfigError, match=r"list\.csv line 4: 'healthy' stands beside 'mass'; remove one"):
            choose_classes(example("healthy", "mass"), FINDINGS, "multilabel")


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_task_of_one_class_says_so(task: Task) -> None:
    source = msgspec.structs.replace(FINDINGS, negative=[])
    with pytest.raises(ConfigError, match=rf"line 4: the image is 'mass' and 'nodule' at once, and task '{task}' needs one"):
        choose_classes(example("mass", "nodule"), source, task)
    with pytest.raises(ConfigError, match=rf"line 4: the image has no label, and task '{task}' needs one"):
        choose_classes(example(), source, task)


def write(root: Path, *lines: str) -> None:
    """A manifest, and an image of its own for every line."""
    for number, _ in enumerate(lines):
        Image.new("L", (20, 20), number).save(root / f"{number}.png")
    rows = [f"{number}.png,{line}" for number, line in enumerate(lines)]
    (root / "manifest.csv").write_text("\n".join(["path,labels,patient,view,age,sex", *rows]) + "\n")


def read(root: Path, source: SourceConfig = FINDINGS) -> ImageSet:
    return read_images(root, source, CONTRACT, task="multilabel")


def test_a_multilabel_manifest_becomes_a_table_of_findings(tmp_path: Path) -> None:
    write(tmp_path, "mass|nodule,a,PA,61,F", ",b,,,", "nodule,c,,,", "healthy,d,,,", "mass,e,,,", "mass,f,,,")
    images = read(tmp_path)
    assert images.targets.tolist() == [[True, True], [False, False], [False, True], [False, False], [True, False], [True, False]]
    assert images.strata.tolist() == [1, 2, 1, 2, 0, 0]
    assert images.files[0].labels == (0, 1)
    assert (images.files[0].view, images.files[0].age_years, images.files[0].sex) == ("PA", 61, "F")
    assert (images.files[1].view, images.files[1].origin) == (None, f"{tmp_path / 'manifest.csv'} line 3")


def test_the_fingerprint_follows_the_findings(tmp_path: Path) -> None:
    lines = ["mass|nodule,a,,,", ",b,,,", "nodule,c,,,", "mass,d,,,", ",e,,,"]
    write(tmp_path, *lines)
    first = read(tmp_path).fingerprint
    write(tmp_path, *lines[:4], "mass,e,,,")
    assert read(tmp_path).fingerprint != first


def test_a_finding_needs_two_patients_with_it_and_two_without(tmp_path: Path) -> None:
    write(tmp_path, "mass|nodule,a,,,", "mass,b,,,", ",c,,,", ",d,,,")
    with pytest.raises(ConfigError, match=r"all images of the class 'nodule' \(0\.png is the first\) belong to one patient"):
        read(tmp_path)
    write(tmp_path, "mass|nodule,a,,,", "mass|nodule,b,,,", "mass,c,,,", "nodule,d,,,")
    with pytest.raises(ConfigError, match=r"all images without the label 'mass' \(3\.png is the first\) belong to one patient"):
        read(tmp_path)
    write(tmp_path, "mass,a,,,", "mass,b,,,")
    with pytest.raises(ConfigError, match=r"no image has the label 'nodule' of source\.labels; the labels there are: mass"):
        read(tmp_path)


def test_the_same_bytes_under_other_findings_name_both_lines(tmp_path: Path) -> None:
    write(tmp_path, "mass|nodule,a,,,", "mass,b,,,", ",c,,,", ",d,,,")
    (tmp_path / "3.png").write_bytes((tmp_path / "0.png").read_bytes())
    with pytest.raises(ConfigError, match=r"line 5: 3\.png is the same image as 0\.png \(.*line 2\), but under other labels"):
        read(tmp_path)


def test_folders_are_merged_into_a_class_that_has_none_itself(tmp_path: Path) -> None:
    for name in ("NORMAL", "BACTERIA", "VIRUS", "OTHER"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / f"{name}.png")
    source = msgspec.structs.replace(
        FINDINGS, layout="folders", labels=["NORMAL", "SICK"], merge={"BACTERIA": "SICK", "VIRUS": "SICK"}, negative=[]
    )
    examples = list_source(tmp_path, source)
    assert [choose_classes(found, source, "binary") for found in examples] == [(0,), (1,), (1,)]


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("binary", 'labels = ["a", "b", "c"]\npositive = ["c"]', r"names 3 .*'binary' needs exactly two classes"),
        ("binary", 'labels = ["a", "b"]', r"positive must name one of \['a', 'b'\] for task 'binary'"),
        ("multiclass", 'labels = ["a", "b"]\npositive = ["b"]', "names 2 .*'multiclass' needs three classes or more"),
        ("multiclass", 'labels = ["a", "b", "c"]', "some, but not all"),
        ("multiclass", 'labels = ["a", "b", "c"]\npositive = ["a", "b", "c"]', "some, but not all"),
        ("multiclass", 'labels = ["a", "b", "c"]\npositive = ["b", "b"]', "twice"),
        ("multiclass", 'labels = ["a", "b", "c"]\npositive = ["d"]', "'d', which is none of"),
        ("multiclass", 'labels = ["a", "b", "b"]\npositive = ["b"]', "different names"),
        ("multilabel", 'labels = ["a", "b"]\npositive = ["b"]', "every label for task 'multilabel'; remove it"),
        ("multilabel", "labels = []", "names 0 .*one finding or more"),
        ("multilabel", 'labels = ["a"]\nnegative = ["a"]', "negative names 'a'"),
        ("binary", 'labels = ["a", "b"]\npositive = ["b"]\nnegative = ["c"]', "negative is for task 'multilabel'"),
        ("binary", 'labels = ["a", "b"]\npositive = ["b"]\nfolds = 1', "folds must be 0"),
    ],
)
def test_a_config_whose_labels_do_not_fit_the_task(tmp_path: Path, task: str, lines: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_build_config(written(tmp_path, task, lines))
    assert "build.toml: source." in str(caught.value)


def test_labels_that_fit(tmp_path: Path) -> None:
    assert load_build_config(written(tmp_path, "multiclass", 'labels = ["a", "b", "c"]\npositive = ["c", "b"]')).source.folds == 0
    findings = load_build_config(written(tmp_path, "multilabel", 'labels = ["a"]\nnegative = ["none"]\nfolds = 5')).source
    assert (findings.positive, findings.folds) == (["a"], 5)


def written(folder: Path, task: str, lines: str) -> Path:
    path = folder / "build.toml"
    path.write_text(
        f'name = "t"\nversion = "1"\nserial = 1\ntask = "{task}"\n[input]\nrows = 64\ncolumns = 64\n'
        '[card]\npopulation = "p"\nintended_use = "u"\nlimitations = []\n'
        f'[source]\nlayout = "manifest"\ntitle = "t"\nlicence = "l"\nattribution = "a"\n{lines}\n'
    )
    return path
