"""A trained run behind Ray Serve: each replica is a worker of one stream, which they share on PostgreSQL.

    python examples/ray_serve.py RUN postgresql://USER@HOST/DATABASE

A replica answers from its own part of the stream and hears of the others once a second; no request waits for another
replica. The replica that takes the place of a dead one resumes its slot. Needs ray[serve] and the extra `postgres`.
"""

import json
import sys
import time
from typing import Any

import pandas as pd

REPLICAS, REQUESTS = 2, 200


def application(run: str, address: str) -> Any:
    from ray import serve

    @serve.deployment(num_replicas=REPLICAS, max_ongoing_requests=16, ray_actor_options={"num_cpus": 0.5})
    class Scores:
        def __init__(self) -> None:
            from fairlayer.serving import Scorer
            from fairlayer.streaming.stores.shared import SharedStore

            self.scorer = Scorer(run, store=SharedStore(address, shares=REPLICAS))

        def score(self, records: list[dict[str, Any]], ids: list[str]) -> dict[str, Any]:
            return self.scorer.score(records, ids).shown()

        def labels(self, ids: list[str], labels: list[float]) -> dict[str, int]:
            return self.scorer.deliver_labels(ids, labels)._asdict()

        def state(self) -> dict[str, Any]:
            return self.scorer.describe()

    return Scores.bind()


def main(run: str, address: str) -> None:
    from ray import serve

    from fairlayer.data import LendingPopulation

    applicants = pd.DataFrame(LendingPopulation().sample(REQUESTS, seed=5)).drop(columns=["label", "repays"])
    records = json.loads(applicants.to_json(orient="records"))  # a missing value is null
    handle = serve.run(application(run, address), route_prefix=None)
    waiting = [handle.score.remote([record], [f"request {i}"]) for i, record in enumerate(records)]
    scores = [answer.result()["scores"][0] for answer in waiting]
    time.sleep(3.0)  # longer than an exchange takes
    state = handle.state.remote().result()
    print(f"{len(scores)} answered; a replica knows of {state['samples']} predictions in phase {state['phase']}")
    serve.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 3 else print(__doc__)
