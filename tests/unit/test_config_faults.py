"""What a wrong setting is told: the key, what was expected and found, where, and the nearest names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a working directory holds (``dataset/``, ``runs/``) is none of these tests' business."""
    monkeypatch.chdir(tmp_path)


BAD = [
    ("--epoch=1", "epoch: unknown setting; did you mean 'epochs'? (command line)"),
    ("--opt.lr=1", "opt: unknown setting"),
    ("--optimizer.lrr=1", "optimizer.lrr: unknown key; did you mean 'lr'? (known: betas, eps, lr, name)"),
    ("--epochs=ten", "epochs: expected an integer >= 1; found 'ten'"),
    ("--epochs=1.5", "epochs: expected an integer >= 1; found '1.5'"),
    ("--epochs=0", "epochs: expected an integer >= 1; found '0'"),
    ("--epochs", "epochs: expected an integer >= 1; the value is missing (command line)"),
    ("--cache_dir", "cache_dir: expected text, or null; the value is missing (command line)"),
    ("--config_files", "config_files: expected paths of YAML files; the value is missing"),
    ("--interactions", "such as [gdcn, {name: masknet, blocks: 3}]; the value is missing (command line)"),
    ("--interactions=", "such as [gdcn, {name: masknet, blocks: 3}]; found nothing (command line)"),
    ("--loggers=", "loggers: expected a list of (one of csv, tensorboard, wandb); found nothing (command line)"),
    ("--lr=3", "lr: unknown setting; did you mean 'optimizer.lr', 'embedding_optimizer.lr' or 'learning_rate'? (c"),
    ("--eps=3", "eps: unknown setting; did you mean 'optimizer.eps'? (command line)"),
    ("--opt.eps=3", "opt: unknown setting; did you mean 'optimizer.eps'? (command line)"),
    ("--batch_size=3", "batch_size: unknown setting; did you mean 'train_batch_size' or 'eval_batch_size'? (command"),
    ("--patience=3", "patience: unknown setting; did you mean 'stopping_step'? (command line)"),
    ("--readr=1", "readr: unknown setting; --help shows the settings (command line)"),
    ("--seed=-1", "seed: expected an integer >= 0 and < 4294967296; found '-1'"),
    ("--dropout=1", "dropout: expected a number >= 0 and < 1; found '1'"),
    ("--dropout=nan", "dropout: expected a number >= 0 and < 1; found 'nan'"),
    ("--optimizer.lr=inf", "optimizer.lr: expected a number > 0; found 'inf'"),
    ("--optimizer=adam", "optimizer: expected a map with the keys name, lr, betas, eps; found 'adam': did you mean "),
    ("--embedding_optimizer=sgd", "found 'sgd': did you mean embedding_optimizer.name=sgd?"),
    ("--optimizer.betas=[0.9]", "optimizer.betas: expected a list of 2 values, each a number >= 0 and < 1; found [0.9"),
    ("--optimizer.betas=[0.9, 1]", "optimizer.betas[1]: expected a number >= 0 and < 1; found '1'"),
    ("--optimizer.name=addam", "optimizer.name: expected one of adam, adamw, sgd, adagrad; found 'addam': did you"),
    ("--quiet=maybe", "quiet: expected true or false; found 'maybe'"),
    ("--embedding_compression=hash", "embedding_compression: expected a map with the keys method, above, "),
    ("--embedding_compression.method=qr", "method: expected one of none, hash, quotient_remainder; found 'qr'"),
    ("--embedding_compression.collisions=1", "embedding_compression.collisions: expected an integer >= 2; found '1'"),
    ("--embedding_compression.rows=9", "embedding_compression.rows: unknown key; "),
    ("--embedding_compression={method: hash, above: 9, keep: 10}", "keep: expected at most embedding_compression.abov"),
    ("--split=randm", "split: expected one of random, time, user_time, given, column; found 'randm': did you mean"),
    ("--precision=16", "precision: expected one of 32, bf16-mixed, 16-mixed; found '16'"),
    ("--devices=0", "devices: expected a number >= 1"),
    ("--devices=two", "devices: expected a number >= 1"),
    ("--accelerator=gup", "accelerator: unknown accelerator 'gup'; did you mean 'gpu'?"),
    ("--strategy=ddp_spawn", "strategy: unknown strategy 'ddp_spawn'; "),
    ("--eval_step=11", "eval_step: expected at most epochs (10)"),
    ("--batch_parts=2 --compile=default", "batch_parts: compile=default compiles whole batches: use batch_parts=1 or "),
    ("--batch_parts=0", "batch_parts: expected an integer >= 1; found '0'"),
    ("--dataset=", "dataset: expected text; found nothing"),
    ("--dataset=ml-100", "dataset: unknown data set 'ml-100'; did you mean 'ml-100k' or 'ml-1m'?"),
    ("--dataset=alicpp", "dataset: unknown data set 'alicpp'; did you mean 'aliccp'"),
    ("--dataset=zzz", "dataset: unknown data set 'zzz'; `list datasets` shows all."),
    ("--model=DNT", "model: unknown model 'DNT': did you mean 'DTN'?"),
    ("--balancer=fixd", "balancer: unknown balancer 'fixd': did you mean 'fixed'?"),
    ("--preprocessor=ml100k", "preprocessor: unknown preprocessor 'ml100k': did you mean 'ml-100k'?"),
    ("--valid_metric=lik_auc", "valid_metric: unknown metric 'lik_auc'; did you mean 'like_auc'"),
    ("--valid_metric=mean_calibration", "calibration is best at neither end, so that it cannot select an epoch"),
    ("--interactions=gdnc", "interactions[0]: unknown interaction 'gdnc': did you mean 'gdcn'?"),
    ("--interactions=[]", "such as [gdcn, {name: masknet, blocks: 3}], with at least 1 value; found [] (command line"),
    ("--interactions=[[gdcn]]", "interactions[0]: expected a name, or a map with a name"),
    ("--interactions=[{blocks: 3}]", "interactions[0]: expected a name, or a map with a name"),
    ("--interactions=[{name: masknet, block: 3}]", "[0].block: masknet has no such option; did you mean 'blocks'"),
    ("--interactions=[gdcn, {name: memonet, codes: 0}]", "interactions[1].codes: expected an integer >= 1; found '0'"),
    ("--interactions=[{name: gdcn, structure: serial}]", "interactions[0].structure: expected one of stacked"),
    ("--fields=[{name: a", "fields: column 10: not valid YAML"),
    ("--fields=[{name: a, nane: b}]", "fields[0].nane: unknown key; did you mean 'name'?"),
    ("--fields=[{type: float}]", "fields[0].name: is missing; expected text"),
    ("--fields=[{name: a, type: tokens}]", "fields[0].type: expected one of token, token_seq, float; found 'tokens'"),
    ("--fields=[{name: rating}]", "field 'rating' cannot be an input"),
    ("--tasks=[{name: t, label: y, condition: rating = 5}]", "equality is written =="),
    ("--task_chain={love: [lik]}", "task_chain: unknown task 'lik'; did you mean 'like'?"),
    ("--task_chain={love: [like], like: [love]}", "task_chain: a cycle among like, love"),
    ("--task_chain=off", "task_chain: expected one of dataset or a map; found 'off'"),
    ("--expert_sets=3", "expert_sets: is a setting of MMoE, not of DTN"),
    ("--init_from=gone", "init_from: expected the folder of a run; found 'gone'"),
    ("--config_files=gone.yaml", "config_files: gone.yaml: no such file"),
    ("--tasks=[{name: s, label: x}, {name: t, label: y, kind: regression, pos_weight: 2}]", "no positive rows"),
    ("--tasks.like=null", "tasks.like: expected a map of what changes"),
    ("--split_seed=-1", "split_seed: expected an integer >= 0"),
    ("--devices=100000", "devices: expected at most "),
    ("--plugins={zz: mine.py}", "plugins: expected a list of text; found {'zz': 'mine.py'}"),
    ("--plugins=~", "plugins: expected a list of text; found null"),
    ("--dataset=census-income --preprocess.tasks.foo=1", "preprocess.tasks: expected a list of "),
    ("stray", "'stray': unexpected word; settings are --key=value or --key value"),
    ("--gpu_id=0", "gpu_id: is RecBole's setting; choose the device with accelerator (cpu, gpu) and devices"),
    ("--use_gpu=false", "use_gpu: is RecBole's setting; choose the device with accelerator"),
    ("--enable_amp", "enable_amp: is RecBole's setting; set precision: 16-mixed or bf16-mixed"),
    ("--nproc=2", "nproc: is RecBole's setting; the number of processes is devices"),
    ("--worker=4", "worker: is RecBole's setting"),
    ("--checkpoint_dir=x", "checkpoint_dir: is RecBole's setting; run folders go to output_dir"),
    ("--show_progress=false", "show_progress: is RecBole's setting; it is progress"),
    ("--eval_args={}", "eval_args: is RecBole's setting; set split, split_ratio and split_seed"),
    ("--metrics=[acu]", "metrics[0]: unknown metric 'acu': did you mean 'auc'"),
    ("--learner=rmsprop", "optimizer.name: expected one of adam, adamw, sgd, adagrad; found 'rmsprop'"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "message"), BAD, ids=[word for word, _ in BAD])
def test_one_bad_word(word: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(re.split(" (?=--)", word))
    assert message in str(error.value)
    assert "settings are wrong" not in str(error.value), "one fault, one line"
    assert error.value.exit_code == 2


def test_every_fault_is_in_one_message_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("epochs: none\n\nvalid_metric: lik_auc\nlearnig_rate: 1\n")
    with pytest.raises(UsageError) as error:
        resolve([f"--config_files={file}", "--dropout=2", "--gpu_id=1", "--interactions=[gdnc]"])
    lines = str(error.value).splitlines()
    assert lines[0] == "6 settings are wrong:"
    text = str(error.value)
    assert f"  epochs: expected an integer >= 1; found 'none' ({file}:1)" in lines
    assert f"({file}:3)" in next(line for line in lines if line.startswith("  valid_metric: unknown metric 'lik_auc'"))
    assert "  learnig_rate: unknown setting; did you mean 'learning_rate'" in text
    for start in ("  dropout: expected", "  gpu_id: is RecBole's", "  interactions[0]: unknown interaction"):
        assert next(line for line in lines if line.startswith(start)).endswith("(command line)")


def test_a_batch_that_is_too_small_for_the_model() -> None:
    with pytest.raises(UsageError, match=r"^train_batch_size: HoME needs 2 rows or more of a batch; found 1 \(command"):
        resolve(["--model=HoME", "--train_batch_size=1"])
    assert resolve(["--model=HoME", "--train_batch_size=2"]).settings.train_batch_size == 2


def test_an_unknown_model_does_not_hide_the_other_faults_nor_invent_any() -> None:
    with pytest.raises(UsageError) as error:
        resolve(["--model=PLEE", "--levels=2", "--epochs=x", "--nothing=1"])
    keys = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert sorted(keys) == ["epochs", "model", "nothing"]


def test_a_setting_given_whole_and_by_its_parts() -> None:
    with pytest.raises(UsageError, match=r"scheduler.name: is given both as one value and by its parts"):
        resolve(["--scheduler=linear", "--scheduler.name=cosine"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"epochs: 1\nseed: 2\nepochs: 3\n", "a.yaml, line 3: the key 'epochs' is already given in line 1"),
        (b"epochs: 1\nfields: [{name: a\n", "a.yaml, line 3, column 1: not valid YAML"),
        (b"epochs: 1\n\tseed: 1\n", "a.yaml, line 2, column 1: not valid YAML"),
        (b"- epochs\n", "a.yaml: expected a map of `key: value` lines, found list"),
        (b"epochs\n", "a.yaml: expected a map of `key: value` lines, found str"),
        (b"seed: 1\ndataset: caf\xe9\n", "a.yaml, line 2: not UTF-8 text"),
        (b"seed: !!python/object/apply:os.getcwd []\n", "a.yaml, line 1: the tag 'tag:yaml.org,2002:python/object"),
        (b"seed: &a [*a]\n", "a.yaml, line 1: the alias refers to the value that holds it"),
        (b"? [a, b]\n: 1\n", "a.yaml, line 1: a key must be text"),
    ],
    ids=["duplicate", "unclosed", "tab", "list", "scalar", "latin-1", "tag", "alias", "key"],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises(UsageError) as error:
        resolve([], config_files=[tmp_path / "a.yaml"])
    assert message in str(error.value)


FIELD, TASK = "fields: [{name: u}]\n", "tasks: [{name: t, label: y}]\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("fields:\n- {name: u}\n- {name: v}\n- {name: u}\n" + TASK, 4, "fields: 'u' is listed twice"),
        ("fields:\n- name: u\n\n- name: v\n  pooling: sum\n" + TASK, 4, "field 'v': pooling and weights"),
        (FIELD + "tasks:\n- {name: t, label: y}\n- {name: s, label: y, condition: y =}\n", 4, "task 's': condition"),
        (FIELD + "tasks:\n- {name: t, label: y}\n- {name: s, label: y, after: [z]}\n", 4, "task 's': 'after'"),
        (TASK + "fields:\n- {name: u}\n- {name: y}\n", 4, "field 'y' cannot be an input"),
    ],
    ids=["duplicate", "option", "condition", "after", "label"],
)
def test_a_wrong_entry_is_told_with_its_own_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        resolve([], config_files=["a.yaml"])
    assert message in str(error.value)
    assert str(error.value).endswith(f"(a.yaml:{line})")


def test_an_unknown_setting_is_never_answered_with_all_of_them() -> None:
    for word in ("--e=1", "--zzz=1", "--size=1", "--optimizer_=1", "--data=1"):
        with pytest.raises(UsageError) as error:
            resolve([word])
        assert 0 <= str(error.value).count("'") <= 2 * 5, word


def test_a_folder_is_no_config_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)"):
        resolve([], config_files=[tmp_path])


def test_empty_files_and_byte_order_marks_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "bom.yaml").write_text("epochs: 3\n", encoding="utf-8-sig")
    assert resolve([], config_files=[tmp_path / "empty.yaml", tmp_path / "bom.yaml"]).settings.epochs == 3
