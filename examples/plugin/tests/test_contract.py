"""Every method keeps its contract."""

from pathlib import Path

from shop_methods.balancer import ShopScales
from shop_methods.interaction import ShopPairs
from shop_methods.loss import ShopHinge
from shop_methods.metric import ShopBrier
from shop_methods.model import ShopGated
from shop_methods.preprocessor import ShopClicks

from recbole_dtn import testing


def test_interaction() -> None:
    testing.check_interaction(ShopPairs)
    testing.check_interaction(ShopPairs, dropout=0.5)


def test_model() -> None:
    testing.check_model(ShopGated, bottom_hidden=[6], tower_hidden=[4])


def test_loss() -> None:
    testing.check_loss(ShopHinge)


def test_balancer() -> None:
    testing.check_balancer(ShopScales)


def test_metric() -> None:
    testing.check_metric(ShopBrier)


def test_preprocessor(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("u1,i1,1,0\nu2,i2,0,0\n")
    testing.check_preprocessor(lambda data_path: ShopClicks(tmp_path, data_path))
