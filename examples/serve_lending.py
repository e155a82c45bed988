"""Train on generated lending data, serve the run over HTTP, kill the server, start it again: the stream goes on."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pandas as pd

from fairlayer.data import LendingPopulation, read_data_set
from fairlayer.training import FitOptions, prepare, save_run, train

OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # this machine only, whatever the proxy
PROGRAM = "import sys; from fairlayer.cli import main; sys.exit(main(sys.argv[1:]))"


def ask(url: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    try:
        with OPEN(urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return {"status": error.code, **json.load(error)}


def start(port: int) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, "serve", "run", "--port", str(port), "--store", "state.sqlite"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    print(process.stdout.readline().strip().replace(str(port), "PORT"))  # it says so once it can be reached
    return process


def main() -> None:
    parts = prepare(read_data_set("lending"), ["demographic_parity(sex, 0.02)"], hidden=(16,))
    save_run("run", train(parts, FitOptions(epochs=2)))
    applicants = pd.DataFrame(LendingPopulation().sample(300, seed=5)).drop(columns=["label", "repays"])
    records = json.loads(applicants.to_json(orient="records"))
    with socket.create_server(("127.0.0.1", 0)) as free:
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
        gap = state["constraints"]["DemographicParity('sex')"]["pooled_gap"]
        print(f"{state['samples']} predictions, phase {state['phase']}, pooled gap {gap:.4f}")
    finally:
        server.terminate()
        server.wait()
    assert state["samples"] == len(records)


main()
