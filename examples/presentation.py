"""Have a deck made: start the work, watch its progress, fetch the file.

    pip install httpx
    POKEE_API=http://127.0.0.1:8080 POKEE_KEY=$(cat palisade-data/admin.key) python3 examples/presentation.py "Build a deck on …"
"""

import os
import sys
import time

import httpx

message = sys.argv[1] if len(sys.argv) > 1 else "Build a deck on our quarter: Q1: 10, Q2: 12, Q3: 15"
api = httpx.Client(
    base_url=os.environ["POKEE_API"],
    headers={"Authorization": "Bearer " + os.environ["POKEE_KEY"]},
    timeout=None,
)

# It outlives idleness, so that the result can be fetched whenever it suits.
session = api.post("/v1/sessions", json={"persistent": True}).raise_for_status().json()["id"]

# Send the message and hang up: the turn runs to its end all the same.
with api.stream("POST", f"/v1/sessions/{session}/messages", json={"message": message}) as answer:
    answer.raise_for_status()
    print("turn", answer.headers["X-Response-Id"])

# What the work says of itself shows in the session's metadata.
while (record := api.get(f"/v1/sessions/{session}").raise_for_status().json())["busy"]:
    print("status", record["metadata"].get("deck_status", "running"))
    time.sleep(1)

for entry in api.get(f"/v1/sessions/{session}/files?path=output").raise_for_status().json():
    if entry["name"].endswith(".pptx"):
        with api.stream("GET", f"/v1/sessions/{session}/files/output/{entry['name']}") as file:
            with open(entry["name"], "wb") as out:
                for chunk in file.iter_bytes():
                    out.write(chunk)
        print("saved", entry["name"])

api.delete(f"/v1/sessions/{session}").raise_for_status()
