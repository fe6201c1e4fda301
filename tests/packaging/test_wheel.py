"""The wheel runs the main job from any folder, and finds its properties; an interaction of one's own is one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

PLUGIN = '''
from torch import Tensor, nn
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.registry import INTERACTIONS


@INTERACTIONS.register("halved")
class Halved(FeatureInteraction):
    """W flat(e), halved."""

    def __init__(self, shape: FieldShape, output_dim: int, *, factor: float = 0.5) -> None:
        super().__init__(shape, output_dim)
        self.factor = factor
        self.head = nn.Linear(shape.flat_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: object = None) -> Tensor:
        return self.factor * self.head(embeddings.flatten(1))
'''


def test_main_job_from_the_wheel_in_another_folder(
    installed: Path, tmp_path: Path, shell: Callable[[list[object], Path], str]
) -> None:
    where = shell([installed, "-c", "import recbole_dtn; print(recbole_dtn.__file__)"], tmp_path)
    assert str(installed.parents[1]) in where, "the wheel's own package must be the one that is imported"
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    command = ["--model=DTN", "--dataset=ml-100k", "--epochs=1", "--limit_rows=3000", "--plugins=plugin.py"]
    out = shell(
        [installed.parent / "recbole-dtn", *command, "--interactions=[gdcn, {name: halved, factor: 0.25}]"], tmp_path
    )
    assert "\x1b[" not in out, "plain text where the output is not a terminal"
    (record,) = tmp_path.glob("runs/ml-100k/DTN/*/record.json")
    content = json.loads(record.read_text())
    assert content["status"] == "finished"
    assert content["test"]["like"]["auc"] is not None
    assert set(content["gate_weights"]["like"]) == {
        f"{owner}/{module}" for owner in ("like", "love", "shared") for module in ("gdcn", "halved")
    }
    assert (tmp_path / "dataset" / "ml-100k-mt" / "ml-100k-mt.inter").is_file()
    info = ["data", "info", "--dataset=ml-100k", "--limit_rows=3000", "--quick", "--html=info.html"]
    shell([installed.parent / "recbole-dtn", *info], tmp_path)
    assert (tmp_path / "info.html").read_text(encoding="utf-8").count("<svg") >= 3
