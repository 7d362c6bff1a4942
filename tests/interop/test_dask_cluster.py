"""A cluster of processes with less memory than the data: what they compute has the bits of memory."""

import os
from importlib import import_module

import numpy as np
import pytest

import numbaconv
from numbaconv import grad

if os.environ.get("NUMBACONV_REQUIRE_INTEROP"):
    for each in ("dask.array", "distributed", "zarr"):
        import_module(each)
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
zarr = pytest.importorskip("zarr")
lazily = import_module("numbaconv.interop.dask")

#: Of a worker. A process with Numba and its kernels has about 200 MB.
LIMIT = 512 * 2**20


@pytest.fixture(scope="module")
def client():
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=None, silence_logs=40
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def _store(folder, name, lazy, chunks):
    """Have the workers write an array to disk, chunk by chunk: two that write to one chunk would undo each other."""
    stored = zarr.create_array(folder / name, shape=lazy.shape, chunks=chunks, dtype=lazy.dtype, compressors=None)
    da.store(lazy.rechunk(chunks), stored, lock=False)
    return stored


def test_more_data_than_a_worker_has_memory(client, tmp_path):
    """Forward and both gradients, from disk to disk; no algorithm here is a transform."""
    started = set(client.scheduler_info()["workers"])
    shape, chunks = (1, 4, 8000, 4600), (1, 2, 1000, 1150)
    random = da.random.default_rng(0)
    x = _store(tmp_path, "x.zarr", random.random(shape, dtype=np.float32, chunks=chunks), chunks)
    assert x.nbytes > LIMIT
    w = np.random.default_rng(1).standard_normal((3, 4, 5, 5), dtype=np.float32)
    options = {"stride": 3, "padding": "same", "padding_mode": "reflect"}
    lazy_x = da.from_zarr(x, chunks=chunks)
    y = lazily.conv2d(lazy_x, w, activation="relu", **options)
    stored_y = _store(tmp_path, "y.zarr", y, (1, 3, 400, 400))
    lazy_y = da.from_zarr(stored_y)
    by_weight = lazily.conv2d_weight(lazy_x, w.shape, lazy_y, **options).compute()
    up = {"stride": 2, "padding": 2, "output_padding": 1}
    upsampled = lazily.conv_transpose2d(lazy_y, np.ascontiguousarray(w[:, :1]), **up)
    total = upsampled.sum(axis=3).compute()
    limits = {each["memory_limit"] for each in client.scheduler_info()["workers"].values()}
    assert limits == {LIMIT}
    assert set(client.scheduler_info()["workers"]) == started, "a worker was ended for its memory"

    whole = x[...]
    wanted = numbaconv.conv2d(whole, w, activation="relu", **options)
    np.testing.assert_array_equal(stored_y[...], wanted)
    exact = grad.conv2d_weight(whole, w.shape, wanted, **options)
    terms = wanted[0, 0].size
    # All of both are at least zero, so that the sum of absolute values is the gradient itself.
    assert (np.abs(by_weight - exact) <= 2 * (terms + 3) * np.finfo(np.float32).eps * np.abs(exact)).all()
    np.testing.assert_allclose(by_weight, exact, rtol=1e-4)
    rows = numbaconv.conv_transpose2d(wanted, np.ascontiguousarray(w[:, :1]), **up)
    np.testing.assert_allclose(total, rows.sum(axis=3), rtol=1e-3, atol=1e-1)
    np.testing.assert_array_equal(upsampled[..., 1000:1300, 1500:].compute(), rows[..., 1000:1300, 1500:])
