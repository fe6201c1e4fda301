"""Data sets' YAML files: extends, files of the user's own, protocols, and folders that are not finished."""

import pytest

from recbole_dtn.config.datasets import INCOMPLETE, dataset_values, known_datasets, protocols, shadows
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError

BASE = "fields: [{name: a}, {name: b}]\ntasks: [{name: t, label: t}]\nmin_count: 7\noptimizer: {lr: 0.5, eps: 0.25}\n"


def write(data_path, name, text):
    folder = data_path / name
    folder.mkdir()
    (folder / f"{name}.yaml").write_text(text)
    (folder / f"{name}.inter").write_text("a:token\tb:token\tt:float\nx\ty\t1\n")


def settings(data_path, name):
    return resolve({"model": "MMoE", "dataset": name, "data_path": str(data_path)}).settings


def test_maps_merge_and_lists_replace(tmp_path):
    write(tmp_path, "base", BASE)
    write(tmp_path, "mid", "extends: base\nmin_count: 3\noptimizer: {lr: 0.125}\n")
    write(tmp_path, "top", "extends: mid\nfields: [{name: b}]\n")
    found = settings(tmp_path, "top")
    assert [field.name for field in found.fields] == ["b"]
    assert [task.name for task in found.tasks] == ["t"]
    assert (found.min_count, found.optimizer.lr, found.optimizer.eps) == (3, 0.125, 0.25)
    assert "extends" not in dataset_values("top", tmp_path)
    assert settings(tmp_path, "base").min_count == 7


def test_an_unknown_base_is_named_with_the_nearest(tmp_path):
    write(tmp_path, "base", BASE)
    write(tmp_path, "top", "extends: bsae\n")
    with pytest.raises(UsageError, match=r"top\.yaml: extends 'bsae', an unknown data set; did you mean 'base'"):
        settings(tmp_path, "top")


@pytest.mark.parametrize("ring", [["one"], ["one", "two"], ["one", "two", "three"]])
def test_a_cycle_is_named(tmp_path, ring):
    for name, other in zip(ring, [*ring[1:], ring[0]], strict=True):
        write(tmp_path, name, f"extends: {other}\n")
    with pytest.raises(UsageError, match="extends 'one', which extends this file in turn"):
        settings(tmp_path, "one")


def test_a_file_of_ones_own_extends_the_shipped_one_of_its_name(tmp_path):
    write(tmp_path, "census-income", "extends: census-income\nmin_count: 5\nweight_field: instance_weight\n")
    found = settings(tmp_path, "census-income")
    assert (found.min_count, found.weight_field, found.preprocessor) == (5, "instance_weight", "census-income")
    assert [task.name for task in found.tasks] == ["income", "marital"]
    assert dataset_values("census-income", None).get("weight_field") is None


def test_options_of_a_protocol_merge(tmp_path):
    values = dataset_values("census-income-education", None)
    assert values["preprocess"] == {
        "protocol": "official", "tasks": ["education", "marital"], "college": "some", "weights": False,
        "split_seed": 2020,
    }  # fmt: skip
    assert protocols("census-income") == {"official": "census-income"}


def test_keys_that_come_too_late_are_refused(tmp_path):
    write(tmp_path, "top", BASE + "model: DTN\n")
    with pytest.raises(UsageError, match="model: cannot be set in a data set's YAML, which is read after it"):
        settings(tmp_path, "top")


def test_an_unfinished_folder_is_no_data_set(tmp_path):
    write(tmp_path, "mine", BASE)
    (tmp_path / "mine" / "mine.yaml").unlink()
    given = {
        "model": "MMoE", "dataset": "mine", "data_path": str(tmp_path),
        "fields": [{"name": "a"}], "tasks": [{"name": "t", "label": "t"}],
    }  # fmt: skip
    assert resolve(given).settings.dataset == "mine"
    (tmp_path / "mine" / INCOMPLETE).touch()
    with pytest.raises(UsageError, match="unknown data set 'mine'"):
        resolve(given)


def test_the_folder_of_a_shipped_data_set_is_not_listed_as_another(tmp_path):
    folder = tmp_path / "ml-100k-mt"
    folder.mkdir()
    (folder / "ml-100k-mt.inter").write_text("a:token\n")
    assert "ml-100k" in known_datasets(tmp_path)
    assert "ml-100k-mt" not in known_datasets(tmp_path)
    (folder / "ml-100k-mt.yaml").write_text(BASE)
    assert "ml-100k-mt" in known_datasets(tmp_path)


def test_a_users_own_files_win_over_the_shipped_data_set_of_their_name(tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    assert settings(tmp_path, "ml-100k").folder == "ml-100k-mt"
    (folder / "ml-100k.inter").write_text("a:token\tt:float\nx\t1\n")
    assert shadows("ml-100k", tmp_path)
    with pytest.raises(
        UsageError, match=r"ml-100k has atomic files, but nothing says .* shipped data set 'ml-100k', move"
    ):
        settings(tmp_path, "ml-100k")
    given = {"fields": [{"name": "a"}], "tasks": [{"name": "t", "label": "t"}], "data_path": str(tmp_path)}
    found = resolve({**given, "model": "MMoE", "dataset": "ml-100k"}).settings
    assert (found.folder, found.preprocessor, [task.name for task in found.tasks]) == (None, None, ["t"])
    write(tmp_path, "other", "extends: ml-100k\nfolder: ml-100k-mt\n")
    assert [task.name for task in settings(tmp_path, "other").tasks] == ["like", "love"]
    (folder / "ml-100k.yaml").write_text(BASE)
    assert [task.name for task in settings(tmp_path, "ml-100k").tasks] == ["t"]


@pytest.mark.parametrize("name", ["0" * 201, "é" * 101, "a\0b", "\x1bm", "\ud800", ".", "a/b", "a b", ""])
def test_what_cannot_be_the_name_of_a_folder_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="dataset: expected the name of a folder under data_path"):
        settings(tmp_path, name)


@pytest.mark.parametrize("folder", ["/evil", "../evil", "a/../../evil"])
def test_a_folder_outside_of_data_path_is_refused(tmp_path, folder):
    write(tmp_path, "mine", f"{BASE}folder: {folder}\n")
    with pytest.raises(UsageError, match=f"folder: expected a folder under data_path; found '{folder}'"):
        settings(tmp_path, "mine")


@pytest.mark.parametrize("name", ["0" * 200, "ä.b-1", "日本"])
def test_what_can_be_one_is_looked_for(tmp_path, name):
    with pytest.raises(UsageError, match=f"unknown data set '{name}'"):
        settings(tmp_path, name)
    write(tmp_path, name, BASE)
    assert settings(tmp_path, name).min_count == 7


@pytest.mark.parametrize("name", ["0" * 300, '"a\\0b"', '"\\ud800"'])
def test_no_more_can_one_be_extended(tmp_path, name):
    write(tmp_path, "top", f"extends: {name}\n")
    with pytest.raises(UsageError, match=r"top\.yaml: extends .*, an unknown data set"):
        settings(tmp_path, "top")
