"""Run as a program beside the tests, since its import takes seconds: litellm's calls at a base URL; prints what came of each."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices

import litellm


def main(url, key, asked):
    at = {"api_base": url, "api_key": key, "max_retries": 0}
    found = {}
    for who, messages in asked.items():
        whole = litellm.completion(model="openai/big", messages=messages, **at)
        found[f"{who} whole"] = [whole.choices[0].message.content, whole.choices[0].finish_reason]
        pieces = list(litellm.completion(model="openai/big", messages=messages, stream=True, stream_options={"include_usage": True}, **at))
        found[f"{who} stream"] = ["".join(p.choices[0].delta.content or "" for p in pieces if p.choices), len(pieces) > 1]
        form = {"type": "json_schema", "json_schema": {"name": "one", "schema": {"type": "object", "properties": {"label": {"type": "string"}}}}}
        found[f"{who} schema"] = json.loads(litellm.completion(model="openai/big", messages=messages, response_format=form, **at).choices[0].message.content)
    found["alias"] = litellm.completion(model="openai/overproof/routing", messages=asked["student"][1:], **at).choices[0].message.content
    found["embedding"] = litellm.embedding(model="openai/small", input=["abc", "de"], **at).data[1]["embedding"]
    for model in ("wrong", "busy", "down"):
        try:
            litellm.completion(model=f"openai/{model}", messages=[{"role": "user", "content": "x"}], **at)
        except Exception as error:  # its name is what is asked for
            found[model] = type(error).__name__
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
