"""One near-duplicate tool over one file, in a process of its own: what it keeps, its CPU seconds and its peak memory.

    PYTHON tool.py TOOL FILE THRESHOLD KEPT.npy          PYTHON: of the environment that has the tool

CPU seconds are those of the process and its children, reading the file and importing the tool included. Every tool gets the same word 5-grams, where
it lets itself be given them; text-dedup and datatrove make their own.
"""

import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def read(file):
    import pyarrow.parquet as pq

    return pq.read_table(file, columns=["text"]).column(0).to_pylist()


def grams(text):
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def curate(file, threshold, work):
    from curate.dedup import near

    texts = read(file)
    keep = [False] * len(texts)
    for row in near(texts, threshold).kept:
        keep[row] = True
    return keep


def rensa(file, threshold, work):
    from rensa import RMinHashDeduplicator

    found = RMinHashDeduplicator(threshold=threshold, num_perm=128, use_lsh=True)
    return found.add_pairs((str(i), grams(text)) for i, text in enumerate(read(file)))


def datasketch(file, threshold, work):
    from datasketch import MinHash, MinHashLSH

    index, keep = MinHashLSH(threshold=threshold, num_perm=128), []
    for i, text in enumerate(read(file)):
        signature = MinHash(num_perm=128)
        signature.update_batch([gram.encode() for gram in grams(text)])
        keep.append(not index.query(signature))
        index.insert(i, signature)
    return keep


def text_dedup(file, threshold, work):
    config = Path(work) / "config.toml"
    config.write_text(
        f'[input]\ninput_type = "local_files"\nfile_type = "parquet"\n[input.read_arguments]\npath = "parquet"\ndata_files = ["{file}"]\nsplit = "train"\n'
        f'[algorithm]\nalgorithm_name = "minhash"\ntext_column = "text"\nseed = 42\nbatch_size = 10000\nnum_perm = 250\nthreshold = {threshold}\n'
        "false_positive_weight = 0.5\nfalse_negative_weight = 0.5\nhash_bits = 64\nngram_size = 5\ncheck_false_positive = true\n"
        f'[output]\noutput_dir = "{work}/out"\nclean_cache = false\nsave_clusters = false\n[debug]\nenable_profiling = false\n'
    )
    old = [
        sys.executable,
        "-m",
        "text_dedup.minhash",
        "--path",
        "parquet",
        "--data_files",
        file,
        "--split",
        "train",
        "--cache_dir",
        f"{work}/cache",
    ]
    old += ["--output", f"{work}/out", "--column", "text", "--batch_size", "10000", "--threshold", str(threshold), "--num_proc", "1"]
    subprocess.run(old, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    from datasets import load_from_disk

    keep = [False] * len(read(file))
    for row in load_from_disk(f"{work}/out")["id"][:]:
        keep[int(row)] = True
    return keep


def datatrove(file, threshold, work):
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import JsonlWriter

    # The longest rows of bands, of about 128 numbers, that reach the threshold with probability .9.
    rows = next(r for r in range(16, 0, -1) if 1 - (1 - threshold**r) ** (128 // r) >= 0.9)
    config = MinhashConfig(num_buckets=128 // rows, hashes_per_bucket=rows)

    def reader():
        return ParquetReader(str(Path(file).parent), glob_pattern=Path(file).name, text_key="text", id_key="id")

    for number, (pipeline, tasks) in enumerate([
        ([reader(), MinhashDedupSignature(output_folder=f"{work}/sig", config=config)], 1),
        ([MinhashDedupBuckets(input_folder=f"{work}/sig", output_folder=f"{work}/buckets", config=config)], config.num_buckets),
        ([MinhashDedupCluster(input_folder=f"{work}/buckets", output_folder=f"{work}/removed", config=config)], 1),
        ([reader(), MinhashDedupFilter(input_folder=f"{work}/removed"), JsonlWriter(f"{work}/out", compression=None)], 1),
    ]):  # fmt: skip
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir=f"{work}/log{number}").run()
    keep = [False] * len(read(file))
    for part in Path(work, "out").glob("*"):
        for line in filter(None, part.read_text().split("\n")):  # not splitlines: a text may hold U+2028
            keep[int(json.loads(line)["id"])] = True
    return keep


TOOLS = {"curate": curate, "rensa": rensa, "datasketch": datasketch, "text-dedup": text_dedup, "datatrove": datatrove}


def main():
    tool, file, threshold, kept = sys.argv[1:]
    work = tempfile.mkdtemp()
    started = time.time()
    try:
        keep = TOOLS[tool](str(Path(file).resolve()), float(threshold), work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    import numpy as np

    np.save(kept, np.array(keep, bool))
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    # Not ru_maxrss of its own: that is inherited from the process that started it.
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"cpu": cpu, "wall": time.time() - started, "mib": max(peak, children.ru_maxrss) / 1024}))


if __name__ == "__main__":
    main()
