"""Model files: what is saved comes back, and what is not a model is refused."""

import json
import os

import numpy as np
import pytest
from test_files import assert_same, damaged_copies

import fastnn
from fastnn.files import load_tensors, save_tensors


def every_layer(dtype="float32"):
    return fastnn.Sequential(
        fastnn.Linear(6, 5, dtype=dtype),
        fastnn.LeakyReLU(0.2),
        fastnn.Dropout(0.25),
        fastnn.Linear(5, 7, bias=False, weight_init="orthogonal", dtype=dtype),
        fastnn.Tanh(),
        fastnn.Linear(7, 4, dtype=dtype, bias_init="ones"),
        fastnn.Sigmoid(),
        fastnn.GELU(),
        fastnn.SiLU(),
        fastnn.ReLU(),
        fastnn.Linear(4, 3, dtype=dtype),
        fastnn.Softmax(),
        uint8_scale=1 / 16,
        rng=4,
    )


@pytest.fixture
def model_file(tmp_path):
    model = every_layer()
    model.save(tmp_path / "model.safetensors")
    return model, tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_model_round_trip(tmp_path, dtype, rng):
    model = every_layer(dtype)
    model.save(tmp_path / "a")
    same = fastnn.load(str(tmp_path / "a"))
    x = rng.standard_normal((9, 6)).astype(dtype)
    assert same.predict(x).tobytes() == model.predict(x).tobytes()
    images = rng.integers(0, 17, (9, 6), dtype=np.uint8)
    assert same.predict(images).tobytes() == model.predict(images).tobytes()
    assert same.summary() == model.summary()
    assert same.dtype == dtype
    same.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loaded_model_trains_on(tmp_path, rng):
    model = fastnn.Sequential(fastnn.Linear(6, 5), fastnn.Tanh(), fastnn.Linear(5, 3), rng=1)
    model.save(tmp_path / "model")
    same = fastnn.load(tmp_path / "model")
    x, y = rng.standard_normal((40, 6)).astype("f4"), rng.random((40, 3)).astype("f4")
    for each in (model, same):
        each.fit(x, y, loss="mse", optimizer="adam", epochs=2, rng=1, progress=False)
    assert_same(same.state_dict(), model.state_dict())


def test_keys_and_layout_are_those_of_a_state_dict(model_file):
    model, path = model_file
    tensors, metadata = load_tensors(path)
    assert list(metadata) == ["fastnn"]
    assert_same(tensors, model.state_dict())
    assert tensors["3.weight"].shape == (7, 5)
    assert tensors["3.weight"].flags.c_contiguous


def rewrite(path, change, tensors=None):
    """The file again, its description changed."""
    old, metadata = load_tensors(path)
    description = json.loads(metadata["fastnn"])
    change(description)
    save_tensors(path, old | (tensors or {}), {"fastnn": json.dumps(description)})


def set_layer(index, **fields):
    return lambda d: d["layers"][index].update(fields)


def set_setting(index, **settings):
    return lambda d: d["layers"][index]["settings"].update(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "version 1, got 2"),
        (lambda d: d.pop("version"), "version 1, got None"),
        (lambda d: d.update(more=1), "expected version, uint8_scale, layers"),
        (lambda d: d.update(uint8_scale="x"), "uint8_scale: expected"),
        (lambda d: d.update(uint8_scale=None), "uint8_scale: expected"),
        (lambda d: d.update(layers={}), "layers: expected a list"),
        (lambda d: d.update(layers=[]), "a tensor that belongs to no layer"),
        (lambda d: d.update(layers=[3]), "layer 0: expected one of Linear"),
        (lambda d: d["layers"].pop(), None),  # a Softmax less: another model, but a sound one
        (lambda d: d["layers"].pop(0), r"2\.weight: expected .* \(7, 5\), found none"),
        (set_layer(1, kind="Exec"), "layer 1: expected one of Linear.*got 'Exec'"),
        (set_layer(1, kind="__init__"), "layer 1: expected one of"),
        (set_layer(1, kind=["ReLU"]), "layer 1: expected one of"),
        (set_layer(1, kind="ReLU"), "layer 1: expected kind, settings, the settings with nothing"),
        (set_layer(1, more=1), "layer 1: expected kind, settings"),
        (set_layer(1, settings=[]), "layer 1: expected kind, settings"),
        (set_layer(0, initialization=3), "initialization as a short text"),
        (set_layer(0, initialization="\x1b[2J"), "initialization as a short text"),
        (set_layer(0, initialization="a" * 300), "initialization as a short text"),
        (set_setting(0, rng=1), "layer 0: expected"),
        (set_setting(0, weight_init="ones"), "layer 0: expected"),
        (set_setting(0, in_features=7), r"0\.weight: expected float32 of shape \(5, 7\)"),
        (set_setting(0, in_features=10**15), r"0\.weight: expected float32 of shape"),
        (set_setting(0, in_features=0), "layer 0: in_features"),
        (set_setting(0, in_features=True), "layer 0: in_features"),
        (set_setting(0, in_features=6.0), "layer 0: in_features"),
        (set_setting(0, bias=False), r"'0\.bias': a tensor that belongs to no layer"),
        (set_setting(3, bias=True), r"3\.bias: expected a tensor of shape \(7,\), found none"),
        (set_setting(0, dtype="float64"), r"0\.weight: expected float64.*got float32"),
        (set_setting(0, dtype="float16"), "layer 0: expected dtype float32 or float64"),
        (set_setting(0, dtype=["f4"]), "layer 0: expected dtype float32 or float64"),
        (set_setting(1, negative_slope="steep"), "layer 1: negative_slope"),
        (set_setting(1, negative_slope=None), "layer 1: negative_slope"),
        (set_setting(1, negative_slope=1e999), "not valid JSON"),
        (set_setting(2, rate=1.5), "layer 2: rate"),
    ],
)
def test_description_is_checked(model_file, change, message):
    _, path = model_file
    rewrite(path, change)
    if message is None:
        assert len(fastnn.load(path)) == 11
        return
    with pytest.raises(ValueError, match=message) as caught:
        fastnn.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_wrong_tensors(model_file):
    _, path = model_file
    rewrite(path, lambda d: None, {"0.bias": np.zeros(5, np.float64)})
    with pytest.raises(ValueError, match=r"0\.bias: expected float32 of shape \(5,\), got float64"):
        fastnn.load(path)
    rewrite(path, lambda d: None, {"0.bias": np.zeros(5, np.float32), "x": np.zeros(1)})
    with pytest.raises(ValueError, match="'x': a tensor that belongs to no layer"):
        fastnn.load(path)


def test_foreign_files(tmp_path, model_file):
    _, path = model_file
    foreign = tmp_path / "torch.safetensors"
    save_tensors(foreign, load_tensors(path)[0], {"format": "pt"})
    with pytest.raises(ValueError, match="expected a model saved by fastnn, got another"):
        fastnn.load(foreign)
    for text in ("", "[]", "{", "[" * 900, "nothing"):
        save_tensors(foreign, {}, {"fastnn": text})
        with pytest.raises(ValueError, match="torch.safetensors: fastnn: "):
            fastnn.load(foreign)
    np.savez(tmp_path / "model.npz", x=np.ones(3))
    with pytest.raises(ValueError, match="model.npz: truncated or not a safetensors file"):
        fastnn.load(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="got a folder"):
        fastnn.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        fastnn.load(tmp_path / "nowhere")


def test_layers_of_ones_own_are_refused(tmp_path):
    class Mine(fastnn.LeakyReLU):
        pass

    model = fastnn.Sequential(fastnn.Linear(2, 2), Mine())
    with pytest.raises(TypeError, match="layer 1: expected one of Linear.*got Mine"):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_damaged_models_raise_value_error_only(model_file, tmp_path, rng):
    _, path = model_file
    good, bad_path = path.read_bytes(), tmp_path / "bad"
    x = rng.standard_normal((2, 6)).astype("f4")
    refused = 0
    for bad in damaged_copies(good, 2000, seed=2):
        bad_path.write_bytes(bad)
        try:
            loaded = fastnn.load(bad_path)
        except ValueError as error:
            refused += 1
            assert str(bad_path) in str(error)
        else:
            assert loaded.predict(x).shape == (2, 3)
    assert refused > 1000


def test_hundreds_of_layers_pass(tmp_path):
    layers = [fastnn.Linear(2, 2) if i % 2 else fastnn.LeakyReLU(0.01) for i in range(600)]
    model = fastnn.Sequential(*layers, rng=1)
    model.save(tmp_path / "model")
    assert_same(fastnn.load(tmp_path / "model").state_dict(), model.state_dict())


def test_a_loaded_model_has_no_gradients_until_they_are_asked_for(model_file):
    _, path = model_file
    model = fastnn.load(path)
    model.predict(np.ones((2, 6), np.float32))
    assert model._gradient_memory is None
    assert not model.gradients()["10.bias"].any()
    model.forward(np.ones((2, 6), np.float32))
    model.backward(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert model.gradients()["10.bias"].any()
    assert np.shares_memory(model[0].grad_weight, model._gradients)
