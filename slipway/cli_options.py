"""Options of the command line that say what a recipe's section says: checked in the same way, blamed on the option."""

import json
from typing import Any

from slipway.errors import SlipwayError


def override(section_type: type[Any], section: Any, options: dict[str, Any]) -> Any:
    """`section` with the options that were given; validated as if they stood in a recipe."""
    from pydantic import ValidationError

    given = {name: value for name, value in options.items() if value is not None}
    try:
        return section_type.model_validate_json(json.dumps(section.model_dump(mode="json") | given))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            raise SlipwayError(f"{first['ctx']['error']}.") from error
        option = "--" + str(first["loc"][0]).removesuffix("_s").replace("_", "-") if first["loc"] else "options"
        raise SlipwayError(f"{option}: {json.dumps(first['input'])}: {first['msg'].removeprefix('Input ')}.") from error
