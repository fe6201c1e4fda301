"""Our sides of the preprocessing benchmark: ``python preprocess_ours.py atomic|table FOLDER OUTPUT``."""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    side, folder, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    from recbole_dtn.config.load import resolve
    from recbole_dtn.preprocess.prepare import prepare

    start = time.perf_counter()
    found = {}
    if side == "table":
        from recbole_dtn.preprocess.table.preprocessor import preprocess_table

        preprocess_table(folder / "data.csv", folder / "spec.yaml", "table", output)
        data_path, name = output, "table"
        found["atomic_seconds"] = time.perf_counter() - start
    else:
        data_path, name = folder, "atomic"
    words = [f"--dataset={name}", f"--data_path={data_path}", f"--cache_dir={output / 'cache'}"]
    prepared = prepare(resolve(words).settings)
    seconds = time.perf_counter() - start
    cache = sum(file.stat().st_size for file in prepared.cache_folder.rglob("*") if file.is_file())
    rows = sum(prepared.summary.rows.values())
    print(json.dumps({"seconds": seconds, "cache_bytes_per_row": cache / rows, **found}))


if __name__ == "__main__":
    main()
