"""The layouts of the field: what each yields, and each fault told by file and line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from edge_agent.errors import ConfigError
from edge_agent.imaging.preprocess import InputContract
from model_build.config import LayoutName, SourceConfig, load_build_config
from model_build.data.classes import choose_classes
from model_build.data.example import Example
from model_build.data.images import NO_CLASS, read_images
from model_build.data.layouts.reading import list_examples

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
MASS_HEADER = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,mass margins,assessment,"
    "pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
CALC_HEADER = (
    "patient_id,breast density,left or right breast,image view,abnormality id,abnormality type,calc type,calc distribution,assessment,"
    "pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
DICOM_HEADER = "file_path,image_path,AccessionNumber,PatientID,SeriesDescription,SeriesInstanceUID"
SOURCE = SourceConfig(labels=["normal", "abnormal"], positive=["abnormal"], layout="mini-mias", title="t", licence="l", attribution="a")


def put_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)).save(path)


def put_table(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def refused(root: Path, layout: LayoutName, *parts: str) -> None:
    """The layout is refused by a message that holds every part."""
    with pytest.raises(ConfigError) as caught:
        list_examples(root, layout)
    for part in parts:
        assert part in str(caught.value)


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    put_table(
        tmp_path / "Data_Entry_2017.csv",
        NIH_HEADER,
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,81,F,AP,2500,2048,0.171,0.171,",
    )
    put_image(tmp_path / "images_001" / "images" / "00000001_000.png")
    put_image(tmp_path / "images_002" / "images" / "00000002_000.png")
    return tmp_path


class TestNih:
    def test_yields_findings_patient_and_what_is_known_of_them(self, nih: Path) -> None:
        table = nih / "Data_Entry_2017.csv"
        assert list_examples(nih, "nih") == [
            Example(
                Path("images_001/images/00000001_000.png"),
                ("Cardiomegaly", "Emphysema"),
                "1",
                f"{table} line 2",
                view="PA",
                age_years=58,
                sex="M",
            ),
            Example(Path("images_002/images/00000002_000.png"), ("No Finding",), "2", f"{table} line 3", view="AP", age_years=81, sex="F"),
        ]

    def test_the_official_lists_make_the_split(self, nih: Path) -> None:
        put_table(nih / "test_list.txt", "00000002_000.png", "00000009_000.png")
        assert [example.split for example in list_examples(nih, "nih")] == ["train", "test"]
        put_table(nih / "train_val_list.txt", "00000001_000.png")
        assert [example.split for example in list_examples(nih, "nih")] == ["train", "test"]
        put_table(nih / "train_val_list.txt", "00000008_000.png")
        refused(nih, "nih", "line 2", "neither of train_val_list.txt and test_list.txt")

    def test_an_unknown_finding(self, nih: Path) -> None:
        table = nih / "Data_Entry_2017.csv"
        table.write_text(table.read_text().replace("Emphysema", "Emphysem"))
        refused(nih, "nih", "Data_Entry_2017.csv line 2", "'Emphysem'", "Emphysema")

    def test_no_finding_beside_a_finding(self, nih: Path) -> None:
        table = nih / "Data_Entry_2017.csv"
        table.write_text(table.read_text().replace("No Finding", "No Finding|Mass"))
        refused(nih, "nih", "line 3", "beside other findings")

    def test_a_missing_image_and_one_listed_twice(self, nih: Path) -> None:
        with (nih / "Data_Entry_2017.csv").open("a") as stream:
            stream.write("00000003_000.png,Mass,0,3,60,M,PA,1,1,1,1,\n")
        refused(nih, "nih", "line 4", "no image 00000003_000.png")
        put_image(nih / "images_002" / "images" / "00000003_000.png")
        with (nih / "Data_Entry_2017.csv").open("a") as stream:
            stream.write("00000003_000.png,Hernia,0,3,60,M,PA,1,1,1,1,\n")
        refused(nih, "nih", "line 5", "stands already in", "line 4")

    def test_the_real_part_of_it(self, real_data: Path) -> None:
        examples = list_examples(real_data / "nih1000", "nih")
        assert (len(examples), len({example.patient for example in examples})) == (723, 205)
        assert sum("Effusion" in example.labels for example in examples) == 141


def case(folder: str, series: str) -> str:
    path = f"{folder}/1.3.6.1.4.1.9590.100.1.2.7/{series}/000000.dcm"
    # The real tables break the last path with a line feed inside its quotes.
    return f'{path},{path},"{path}\n"'


@pytest.fixture
def ddsm(tmp_path: Path) -> Path:
    put_table(
        tmp_path / "csv" / "mass_case_description_train_set.csv",
        MASS_HEADER,
        "P_00001,3,LEFT,CC,1,mass,OVAL,SPICULATED,4,BENIGN,4," + case("Mass-Training_P_00001_LEFT_CC", "1.1"),
        "P_00001,3,LEFT,CC,2,mass,OVAL,SPICULATED,4,MALIGNANT,4," + case("Mass-Training_P_00001_LEFT_CC", "1.1"),
        "P_00004,3,RIGHT,MLO,1,mass,OVAL,SPICULATED,4,BENIGN,4," + case("Mass-Training_P_00004_RIGHT_MLO", "1.2"),
    )
    put_table(
        tmp_path / "csv" / "calc_case_description_test_set.csv",
        CALC_HEADER,
        "P_00038,2,LEFT,CC,1,calcification,PUNCTATE,CLUSTERED,2,BENIGN_WITHOUT_CALLBACK,1," + case("Calc-Test_P_00038_LEFT_CC", "1.3"),
    )
    rows = []
    for number, folder in ((1, "Mass-Training_P_00001_LEFT_CC"), (2, "Mass-Training_P_00004_RIGHT_MLO"), (3, "Calc-Test_P_00038_LEFT_CC")):
        rows.append(f"CBIS-DDSM/dicom/1.{number}/1-1.dcm,CBIS-DDSM/jpeg/1.{number}/1-001.jpg,,{folder},full mammogram images,1.{number}")
        rows.append(f"CBIS-DDSM/dicom/2.{number}/1-1.dcm,CBIS-DDSM/jpeg/2.{number}/1-002.jpg,,{folder}_1,cropped images,2.{number}")
        put_image(tmp_path / "jpeg" / f"1.{number}" / "1-001.jpg", number)
    put_table(tmp_path / "csv" / "dicom_info.csv", DICOM_HEADER, *rows)
    return tmp_path


class TestCbisDdsm:
    def test_one_example_for_each_mammogram_with_its_gravest_label(self, ddsm: Path) -> None:
        found = [(str(e.path), e.labels, e.patient, e.split, e.view) for e in list_examples(ddsm, "cbis-ddsm")]
        assert found == [
            ("jpeg/1.1/1-001.jpg", ("malignant",), "P_00001", "train", "LEFT CC"),
            ("jpeg/1.2/1-001.jpg", ("benign",), "P_00004", "train", "RIGHT MLO"),
            ("jpeg/1.3/1-001.jpg", ("benign",), "P_00038", "test", "LEFT CC"),
        ]

    def test_lines_are_counted_through_broken_cells(self, ddsm: Path) -> None:
        table = ddsm / "csv" / "mass_case_description_train_set.csv"
        table.write_text(table.read_text().replace("4,BENIGN,4,Mass-Training_P_00004", "4,UNSURE,4,Mass-Training_P_00004"))
        refused(ddsm, "cbis-ddsm", "mass_case_description_train_set.csv line 6", "'UNSURE'", "BENIGN_WITHOUT_CALLBACK")

    def test_a_series_that_dicom_info_does_not_know(self, ddsm: Path) -> None:
        table = ddsm / "csv" / "dicom_info.csv"
        table.write_text(table.read_text().replace("jpeg/1.2/", "jpeg/1.9/"))
        refused(ddsm, "cbis-ddsm", "line 6", "dicom_info.csv", "'1.2'")

    def test_missing_pieces(self, ddsm: Path) -> None:
        (ddsm / "jpeg" / "1.3" / "1-001.jpg").unlink()
        refused(ddsm, "cbis-ddsm", "calc_case_description_test_set.csv line 2", "there is no image", "1-001.jpg")
        (ddsm / "csv" / "dicom_info.csv").unlink()
        refused(ddsm, "cbis-ddsm", "dicom_info.csv: no such file")
        for table in (ddsm / "csv").iterdir():
            table.unlink()
        refused(ddsm, "cbis-ddsm", "mass_case_description_train_set.csv")


@pytest.fixture
def mias(tmp_path: Path) -> Path:
    put_table(
        tmp_path / "labels.csv",
        "Name,Background Tissue,Abnormality,Type,x,y,r",
        "mdb001,G,CIRC,B,535,425,197",
        "mdb002,D,NORM,,,,",
        "mdb003,G,CIRC,B,500,168,26",
        "mdb003,G,SPIC,M,522,280,69",
        "mdb006,F,NORM",
    )
    for seed, name in enumerate(("mdb001", "mdb002", "mdb003", "mdb006")):
        put_image(tmp_path / "images" / f"{name}.png", seed)
    return tmp_path


class TestMiniMias:
    def test_the_gravest_row_counts_and_two_numbers_are_one_patient(self, mias: Path) -> None:
        found = [(e.path.stem, e.labels, e.patient, e.view) for e in list_examples(mias, "mini-mias")]
        assert found == [
            ("mdb001", ("benign",), "1", "RIGHT"),
            ("mdb002", ("normal",), "1", "LEFT"),
            ("mdb003", ("malignant",), "2", "RIGHT"),
            ("mdb006", ("normal",), "3", "LEFT"),
        ]

    @pytest.mark.parametrize(
        ("old", "new", "parts"),
        [
            ("mdb001,G,CIRC,B", "mdb001,G,CIRC,X", ("labels.csv line 2", "'X'")),
            ("mdb001,G,CIRC,B", "mdb001,G,ROUND,B", ("labels.csv line 2", "'ROUND'")),
            ("mdb001,G,CIRC,B", "film1,G,CIRC,B", ("labels.csv line 2", "'film1'", "patient")),
            ("mdb003,G,SPIC,M", "mdb003,G,NORM,", ("labels.csv line 5", "labels.csv line 4", "NORM")),
            ("mdb006,F", "mdb007,F", ("labels.csv line 6", "mdb007.png")),
            ("Abnormality", "Finding", ("labels.csv line 1", "'Abnormality'", "Background Tissue, Finding")),
        ],
    )
    def test_a_wrong_row(self, mias: Path, old: str, new: str, parts: tuple[str, ...]) -> None:
        table = mias / "labels.csv"
        assert old in table.read_text()
        table.write_text(table.read_text().replace(old, new))
        refused(mias, "mini-mias", *parts)

    def test_the_real_one(self, real_data: Path) -> None:
        examples = list_examples(real_data / "mini_mias", "mini-mias")
        labels = [example.labels[0] for example in examples]
        assert {label: labels.count(label) for label in set(labels)} == {"normal": 157, "benign": 46, "malignant": 39}
        assert len({example.patient for example in examples}) == 121


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    put_table(
        tmp_path / "manifest.csv",
        "\ufeffpath,label,patient,split,age",
        "a/1.png,normal,p1,train,7",
        "a/2.png,flu,p2,test,",
    )
    put_image(tmp_path / "a" / "1.png", 1)
    put_image(tmp_path / "a" / "2.png", 2)
    return tmp_path


class TestManifest:
    def test_yields_what_it_says(self, manifest: Path) -> None:
        found = [(str(e.path), e.labels, e.patient, e.split, e.age_years) for e in list_examples(manifest, "manifest")]
        assert found == [("a/1.png", ("normal",), "p1", "train", 7), ("a/2.png", ("flu",), "p2", "test", None)]

    def test_several_labels_and_another_name(self, manifest: Path) -> None:
        put_table(manifest / "films.csv", "path,labels,patient", "a/1.png,mass | nodule,p1")
        (example,) = list_examples(manifest, "manifest", table="films.csv")
        assert (example.labels, example.split) == (("mass", "nodule"), None)

    @pytest.mark.parametrize(
        ("old", "new", "parts"),
        [
            (",label,", ",class,", ("manifest.csv line 1", "'label'", "'labels'")),
            ("patient,", "person,", ("manifest.csv line 1", "'patient'", "person")),
            ("a/2.png", "a/3.png", ("manifest.csv line 3", "a/3.png")),
            ("a/2.png", "a/1.png", ("manifest.csv line 3", "manifest.csv line 2")),
            (",p2,", ",,", ("manifest.csv line 3", "'patient' is empty")),
            (",test,", ",testing,", ("manifest.csv line 3", "'testing'", "train, val, test")),
            (",7", ",seven", ("manifest.csv line 2", "'seven'")),
        ],
    )
    def test_a_wrong_line(self, manifest: Path, old: str, new: str, parts: tuple[str, ...]) -> None:
        table = manifest / "manifest.csv"
        assert old in table.read_text()
        table.write_text(table.read_text().replace(old, new))
        refused(manifest, "manifest", *parts)

    def test_no_table_no_row_no_text_no_folder(self, manifest: Path) -> None:
        put_table(manifest / "manifest.csv", "path,label,patient")
        refused(manifest, "manifest", "manifest.csv: has a header but no row")
        (manifest / "manifest.csv").write_bytes(b"path,label,patient\n\xff\xfe\n")
        refused(manifest, "manifest", "manifest.csv", "UTF-8")
        (manifest / "manifest.csv").unlink()
        refused(manifest, "manifest", "manifest.csv: no such file")
        refused(manifest / "nowhere", "manifest", "no such folder")


class TestClasses:
    MERGED = msgspec.structs.replace(SOURCE, merge={"benign": "abnormal", "malignant": "abnormal"})

    def test_labels_are_merged_into_classes(self, mias: Path) -> None:
        images = read_images(mias, self.MERGED, InputContract(rows=16, columns=16), task="binary")
        assert images.strata.tolist() == [1, 0, 1, 0]

    def test_an_unknown_label_names_the_line(self, mias: Path) -> None:
        with pytest.raises(ConfigError, match=r"labels\.csv line 2: the label 'benign' is none of source\.labels.*source\.merge"):
            read_images(mias, SOURCE, InputContract(rows=16, columns=16), task="binary")

    def test_a_label_can_be_left_out(self, mias: Path) -> None:
        source = msgspec.structs.replace(SOURCE, merge={"malignant": "abnormal"}, leave_out=["*"])
        with pytest.raises(ConfigError, match=r"'abnormal' .* belong to one patient"):
            read_images(mias, source, InputContract(rows=16, columns=16), task="binary")
        assert choose_classes(Example(Path("x"), ("benign",), "1", "x"), source, "binary") is None
        put_image(mias / "images" / "mdb009.png", 9)
        with (mias / "labels.csv").open("a") as stream:
            stream.write("mdb009,G,CIRC,M,1,1,1\n")
        assert read_images(mias, source, InputContract(rows=16, columns=16), task="binary").left_out_counts() == {NO_CLASS: 1}

    def test_a_class_that_no_image_has(self, mias: Path) -> None:
        source = msgspec.structs.replace(SOURCE, labels=["normal", "cancer"], leave_out=["*"])
        with pytest.raises(ConfigError, match=r"'cancer'.*the labels there are: benign, malignant, normal"):
            read_images(mias, source, InputContract(rows=16, columns=16), task="binary")

    def test_two_classes_at_once(self) -> None:
        example = Example(Path("x"), ("Mass", "No Finding"), "1", "list.csv line 4")
        source = msgspec.structs.replace(SOURCE, labels=["Mass", "No Finding"])
        with pytest.raises(ConfigError, match=r"list\.csv line 4: the image is 'Mass' and 'No Finding' at once"):
            choose_classes(example, source, "binary")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[source]", '[source]\nlayout = "nih"', "patient_pattern is for layout 'folders'"),
        ("patient_pattern =", "# patient_pattern =", "patient_pattern is missing"),
        ("[source]", '[source]\nlayout = "files"', "layout"),
        ("[source]", '[source]\nleave_out = ["NORMAL"]', "leave_out"),
        ("[source]", '[source]\nmerge = { "flu" = "PNEUMONI" }', "'PNEUMONI'"),
    ],
)
def test_a_wrong_source_names_file_and_key(tmp_path: Path, repository: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "build.toml"
    path.write_text((repository / "model_build" / "configs" / "cxr-pneumonia.toml").read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        load_build_config(path)
    assert "build.toml" in str(caught.value)
