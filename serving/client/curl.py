"""The line to paste into a shell."""

import json
import shlex

from serving.protocol import inference_body


def curl_line(url: str, model: str, text: str) -> str:
    """A shell line that asks the endpoint at `url` (`http://host:port`) for the label and score of `text`."""
    body = json.dumps(inference_body(text), ensure_ascii=False)
    return f"curl -s {shlex.quote(f'{url}/v2/models/{model}/infer')} -d {shlex.quote(body)}"
