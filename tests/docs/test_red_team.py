"""The configurations for red-team suites are well formed and point at what the gateway has."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from overproof.serve.routes import ENDPOINTS

FOLDER = Path(__file__).parents[2] / "examples" / "red-team"
PATHS = {one.path for one in ENDPOINTS}


def test_the_rest_description_asks_the_gateways_endpoint():
    """Its address, its key from the environment, the input's place and the answer's place are there."""
    found = json.loads((FOLDER / "garak-rest.json").read_text())["rest"]["RestGenerator"]
    assert urlsplit(found["uri"]).path in PATHS
    assert "$INPUT" in json.dumps(found["req_template_json_object"])
    assert "$KEY" in found["headers"]["Authorization"]
    assert found["req_template_json_object"]["model"].startswith("overproof/")
    assert found["response_json_field"] == "$.choices[0].message.content"


def test_the_comparison_asks_as_served_and_the_teacher():
    """Two providers under the gateway's base path, one of them routed to the teacher; each test has an input."""
    found = yaml.safe_load((FOLDER / "promptfooconfig.yaml").read_text())
    served, teacher = found["providers"]
    for one in (served, teacher):
        assert f"{urlsplit(one['config']['apiBaseUrl']).path}/chat/completions" in PATHS
    assert teacher["config"]["headers"] == {"x-overproof-route": "teacher"}
    assert "headers" not in served["config"]
    assert all(one["vars"]["text"] for one in found["tests"])
