"""The options of `fairlayer stream` and `fairlayer serve`."""

from __future__ import annotations

import argparse
from typing import Any

from fairlayer.cli.options import add_reading, new_parser

__all__ = ["add_serve", "add_stream"]


def add_stream(commands: Any) -> None:
    """Add `fairlayer stream`."""
    stream = new_parser(
        description="Emit a prediction for each row as it comes, and hold the gap of the recent ones within tolerance "
        "and a stated noise (--policy says which gap is held). The gaps are printed beside those of doing nothing and "
        "of projecting the whole table at once.",
    )
    commands.add_subcommand("stream", stream, help="Stream a table through a trained run, row by row.")
    stream.add_argument("run", help="The run folder that `train` wrote.")
    stream.add_argument(
        "table", help="A CSV or parquet file with the columns of the training table, its rows in order of arrival."
    )
    stream.add_argument("--out", help="The CSV file to write, with the columns score and streamed_score.")
    stream.add_argument(
        "--batch-size", type=int, default=1, help="The number of rows that arrive together (default: %(default)s)."
    )
    stream.add_argument(
        "--plot",
        metavar="PNG",
        help="The picture to write: the pooled gap, the shifts and the phases over the stream.",
    )
    stream.add_argument(
        "--plot-report",
        metavar="PNG",
        help="The picture to write: the raw and the emitted gap of each bucket, who was moved, and the phases.",
    )
    stream.add_argument(
        "--at", metavar="COLUMN", help="The column that holds the clock of the window: seconds that never fall."
    )
    stream.add_argument(
        "--decisions",
        action="store_true",
        help=(
            "Decide each row too, by the decision rule of the run, so that the gap of all decisions"
            " so far stays within tolerance."
        ),
    )
    stream.add_argument(
        "--report",
        metavar="HTML",
        help=(
            "The page to write: the gaps of each bucket with the band, who was moved, phases, "
            "events, cost, and decisions."
        ),
    )
    stream.add_argument("--buckets", action="store_true", help="Print the report of the stream, bucket by bucket.")
    stream.add_argument(
        "--trail", metavar="FILE", help="The audit trail to write, with one row for each row of the table."
    )
    _add_trail_key(stream)
    _add_policy(stream)
    add_reading(stream)


def add_serve(commands: Any) -> None:
    """Add `fairlayer serve`."""
    serve = new_parser(
        description="Answer POST /score, /labels and, where the run keeps a decision rule, /decide, and GET /state, "
        "/metrics, /health, /ready and /docs. Without a token anybody who reaches the address can ask.",
    )
    commands.add_subcommand("serve", serve, help="Answer over HTTP, through one stream.")
    serve.add_argument("run", help="The run folder that `train` wrote.")
    serve.add_argument("--host", default="127.0.0.1", help="The address to listen on (default: %(default)s).")
    serve.add_argument("--port", type=int, default=8000, help="The port to listen on (default: %(default)s).")
    serve.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help=(
            "A name that the Host header may have. It may be given several times (default: names of"
            " this machine for itself where the address is one, else any)."
        ),
    )
    serve.add_argument(
        "--token-file",
        metavar="FILE",
        help=(
            "The file with the token that requests must carry as 'Authorization: Bearer TOKEN' "
            "(default: the environment's FAIRLAYER_TOKEN, else none is asked for)."
        ),
    )
    serve.add_argument(
        "--most-bytes",
        type=int,
        default=4_000_000,
        help="The largest body of a request, in bytes (default: %(default)s).",
    )
    serve.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help=(
            "The longest time for a request to arrive, and for requests that are under way at the "
            "end (default: %(default)s)."
        ),
    )
    serve.add_argument(
        "--unknown",
        choices=("refuse", "uncovered"),
        default="refuse",
        help=(
            "What to do with a sensitive category that training has not met: refuse the request, or"
            " score and count it while no constraint covers it (default: %(default)s)."
        ),
    )
    serve.add_argument(
        "--decision-policy",
        default="anytime",
        metavar="POLICY",
        help=(
            "The policy of the decisions of /decide, one of those of --policy (default: %(default)s, which "
            "bounds the gap of all decisions so far)."
        ),
    )
    serve.add_argument(
        "--store",
        metavar="STORE",
        help=(
            "What keeps the stream over a restart: a file (SQLite, for one process), or "
            "postgresql://... for several (default: none)."
        ),
    )
    serve.add_argument(
        "--workers",
        type=int,
        default=1,
        help="The number of processes; more than one need postgresql://... (default: %(default)s).",
    )
    serve.add_argument(
        "--shares",
        type=int,
        help=(
            "With postgresql://...: the number of processes, over all hosts, that share the allowed"
            " excess (default: --workers)."
        ),
    )
    serve.add_argument(
        "--lease",
        type=float,
        default=0.01,
        help=(
            "By how much all of them together may move a gap while they do not hear of each other, "
            "in units of the score (default: %(default)s)."
        ),
    )
    serve.add_argument(
        "--synchronous",
        choices=("normal", "full"),
        default="normal",
        help=(
            'How safely a file is written: "full" also outlives a power cut, at one disk flush per '
            "request (default: %(default)s)."
        ),
    )
    serve.add_argument(
        "--trail",
        metavar="FILE",
        help=(
            "The audit trail to write, with one row for each answer, in the transaction that counts it. The stream is "
            "kept in the same file, so that --store is left out. Decisions are kept in FILE.decisions. In place of a "
            "file it may be postgresql://..., where each worker writes a chain of its own."
        ),
    )
    _add_trail_key(serve)
    _add_policy(serve)


def _add_trail_key(command: Any) -> None:
    command.add_argument(
        "--trail-key",
        metavar="FILE",
        help=(
            "The file with the secret key of the trail, as hexadecimal digits (openssl rand -hex 32). The key seals "
            "the trail, hides ids, and commits to what the model read."
        ),
    )


def _add_policy(command: Any) -> None:
    command.add_argument(
        "--policy",
        default="present",
        help=(
            "The policy: present, tracking, anytime or per_batch, or one of your own as "
            "package.module:Class (default: %(default)s)."
        ),
    )
    command.add_argument(
        "--memory", type=float, help="The number of rows that count as recent (default: what the policy says)."
    )
    command.add_argument("--half-life", type=float, help=argparse.SUPPRESS)
    command.add_argument(
        "--window", help="The number of rows, or a time such as 12h or 30d, over which gaps are reported."
    )
    command.add_argument("--hold", choices=("window",), help="Hold the gap of the window too (policy present).")
    command.add_argument(
        "--warm-start",
        metavar="TABLE",
        help="A file of rows like those to come, to begin from. They are not counted.",
    )
