"""What genai-prices, a price list and calculator that is not Guard's, says calls cost.

    prices.py TABLE

TABLE is Guard's own price table; each of its rows is asked for, for one usage per bucket and for all buckets together,
with searches where they cost something, in each tier that the row has, and above its long-context mark. One line of JSON for each, to standard output: the cost
in pico-dollars, or null where genai-prices has no price of that tier. Amounts are exact: it calculates in decimals.
"""

import json
import sys
import tomllib
import warnings
from datetime import datetime, timezone
from decimal import Decimal

from genai_prices import Usage, calc_price

# Prices change on days, and DeepSeek's by the hour: everything is asked for one hour at which nobody charges less.
DAY = datetime(2026, 11, 23, 8, tzinfo=timezone.utc)
PICO = Decimal(10) ** 12

PROVIDERS = {"gemini": "google", "xai": "x-ai", "bedrock": "aws"}

# Models with prices of audio and images of their own: provider, model, and what of it they take or make.
MEDIA = [
    ("openai", "gpt-audio", ["audio in", "audio out"]),
    ("openai", "gpt-realtime", ["audio in", "audio in, cached", "audio out", "image in"]),
    ("gemini", "gemini-2.5-flash", ["audio in", "audio in, cached", "image in"]),
    ("gemini", "gemini-2.5-flash-lite", ["audio in", "audio in, cached"]),
    ("gemini", "gemini-2.5-pro", ["audio in", "audio in, cached"]),
    ("gemini", "gemini-3-flash-preview", ["audio in", "audio in, cached"]),
    ("gemini", "gemini-3-pro-preview", ["audio in", "audio in, cached"]),
    ("gemini", "gemini-3.5-flash", ["audio in", "audio in, cached"]),
    ("gemini", "gemini-2.5-flash-image", ["image in", "image out"]),
]

# Names that stand for another model, and are not in Guard's own table.
NAMES = [
    ("mistral", "mistral-large-latest"),
    ("mistral", "mistral-small-latest"),
    ("deepseek", "deepseek-chat"),
    ("azure", "text-embedding-3-large"),
    ("azure", "gpt-4o"),
]

USAGES = {
    "input": {"input": 1000},
    "output": {"input": 1000, "output": 100},
    "reasoning": {"input": 1000, "output": 100, "reasoning": 60},
    "cache_read": {"input": 1000, "cache_read": 5000, "output": 100},
    "cache_write_5m": {"input": 1000, "cache_write_5m": 300, "output": 100},
    "cache_write_1h": {"input": 1000, "cache_write_1h": 200, "output": 100},
    "everything": {
        "input": 1234, "cache_read": 5678, "cache_write_5m": 321, "cache_write_1h": 123, "output": 987, "reasoning": 654,
    },
}
SEARCHES = {"input": 1000, "output": 100, "web_search": 3}
MEDIA_USAGES = {
    "audio in": {"input": 1000, "input_audio": 400, "output": 100},
    "audio in, cached": {"input": 1000, "cache_read_audio": 300, "output": 100},
    "audio out": {"input": 1000, "output": 100, "output_audio": 50},
    "image in": {"input": 1000, "input_image": 400, "output": 100},
    "image out": {"input": 1000, "output": 100, "output_image": 50},
}


def theirs(usage):
    """The same usage in genai-prices' words, in which totals contain their parts."""
    get = lambda name: usage.get(name, 0)
    written = get("cache_write_5m") + get("cache_write_1h")
    media = get("input_audio") + get("input_image") + get("cache_read_audio")
    fields = {
        "input_tokens": get("input") + get("cache_read") + written + media,
        "cache_read_tokens": get("cache_read") + get("cache_read_audio"),
        "cache_write_tokens": written,
        "cache_write_5m_tokens": get("cache_write_5m"),
        "cache_write_1h_tokens": get("cache_write_1h"),
        "input_audio_tokens": get("input_audio") + get("cache_read_audio"),
        "cache_audio_read_tokens": get("cache_read_audio"),
        "input_image_tokens": get("input_image"),
        "output_tokens": get("output") + get("output_audio") + get("output_image"),
        "output_audio_tokens": get("output_audio"),
        "output_image_tokens": get("output_image"),
        "output_reasoning_tokens": get("reasoning"),
        "web_searches": get("web_search"),
    }
    return Usage(**{name: count for name, count in fields.items() if count})


def cost(provider, model, usage, tier):
    name = "processing" if tier == "batch" else "speed" if provider == "anthropic" else "service_tier"
    context = {name: tier} if tier else None
    try:
        price = calc_price(
            theirs(usage), model, provider_id=PROVIDERS.get(provider, provider), genai_request_timestamp=DAY, price_context=context
        )
    except (LookupError, ValueError):
        return None
    tiers = {variant.when.get(name) for variant in price.model.price_variants or []}
    if tier and tier not in tiers:
        return None  # it would give the standard price
    pico = price.total_price * PICO
    return format(pico.normalize(), "f")


def main():
    warnings.simplefilter("error")
    with open(sys.argv[1], "rb") as file:
        # what is billed by number alone (searches, seconds, characters) has no price of tokens to compare
        rows = [row for row in tomllib.load(file)["model"] if "rates" in row]
    for row in rows:
        usages = {"input": USAGES["input"]} if "embed" in row["model"] else USAGES  # an embedding has no output
        asked = [(name, usage, None) for name, usage in usages.items() if bucket_sold(row, name)]
        sold = {name: count for name, count in USAGES["everything"].items() if bucket_sold(row, name)}
        asked = [(name, sold if name == "everything" else usage, tier) for name, usage, tier in asked]
        asked += [("everything", sold, tier) for tier in tiers(row)]
        if "web_search" in row.get("fees", {}):
            asked.append(("web_search", SEARCHES, None))
        if "long" in row:
            marks = row["long"] if isinstance(row["long"], list) else [row["long"]]
            for mark in marks:
                asked.append((f"above {mark['above']}", {**sold, "input": mark["above"]}, None))
                asked.append((f"up to {mark['above']}", {"input": mark["above"], "output": 100}, None))
        for name, usage, tier in asked:
            tell(row["provider"], row["model"], name, usage, tier)
    for provider, model in NAMES:
        for name in ["input"] if "embed" in model else ["input", "output"]:
            tell(provider, model, name, USAGES[name], None)
    for provider, model, names in MEDIA:
        for name in names:
            tell(provider, model, name, MEDIA_USAGES[name], None)


def tiers(row):
    """The tiers of a row. OpenAI has called its `priority` also `fast` since July 2026."""
    names = list(row.get("tiers", {}))
    return names + ["fast"] if row["provider"] == "openai" and "priority" in names else names


def bucket_sold(row, name):
    """Whether the row has a price for a bucket; Guard bills what has none as plain input."""
    return not name.startswith("cache_") or name in row["rates"]


def tell(provider, model, name, usage, tier):
    line = {"provider": provider, "model": model, "case": name, "tier": tier, "usage": usage}
    print(json.dumps({**line, "pico": cost(provider, model, usage, tier)}))


if __name__ == "__main__":
    main()
