"""Train on generated lending data, serve the run over HTTP, kill the server, start it again: the stream goes on.

The same from a shell: fairlayer train ... --out run/   then   fairlayer serve run/ --store state.sqlite
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pandas as pd

from fairlayer.data import LendingPopulation, read_data_set
from fairlayer.training import FitOptions, prepare, save_run, train

OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # this machine only, whatever the proxy
PROGRAM = "import sys; from fairlayer.cli import main; sys.exit(main(sys.argv[1:]))"


def ask(url: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with OPEN(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return {"status": error.code, **json.load(error)}


def start(port: int) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, "serve", "run", "--port", str(port), "--store", "state.sqlite"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    print(process.stdout.readline().strip().replace(str(port), "PORT"))
    for _ in range(200):
        try:
            ask(f"http://127.0.0.1:{port}/health")
            return process
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


def main() -> None:
    parts = prepare(read_data_set("lending"), ["demographic_parity(sex, 0.02)"], hidden=(16,))
    save_run("run", train(parts, FitOptions(epochs=2)))
    applicants = pd.DataFrame(LendingPopulation().sample(300, seed=5)).drop(columns=["label", "repays"])
    records = json.loads(applicants.to_json(orient="records"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server, url = start(port), f"http://127.0.0.1:{port}"
    try:
        for number, record in enumerate(records):
            if number == 150:
                server.kill()
                server.wait()
                server = start(port)
            ask(f"{url}/score", {"records": [record], "ids": [number]})
        print("a bad request:", ask(f"{url}/score", {"records": [{**records[0], "sex": "?"}]}))
        state = ask(f"{url}/state")
        print(f"{state['samples']} predictions, phase {state['phase']}")
        for name, numbers in state["constraints"].items():
            print(f"{name}: pooled gap {numbers['pooled_gap']:.4f}, limit {numbers['limit']}")
    finally:
        server.terminate()
        server.wait()
    assert state["samples"] == len(records)


if __name__ == "__main__":
    main()
