"""Calls a provider in one of the further formats with its vendor's own unmodified SDK: no base URL, key and trust from
the environment. Prints one JSON object: {"ok": true, "text", "tools", "usage"} or {"ok": false, "status", "code",
"message"}.
"""

import argparse
import importlib
import json
import logging
import os
import time


# each with the package that its SDK is in
FORMATS = {
    "responses": "openai",
    "embeddings": "openai",
    "completions": "openai",
    "images": "openai",
    "edit": "openai",
    "speech": "openai",
    "transcribe": "openai",
    "video": "openai",
    "moderation": "openai",
    "gemini": "google.genai",
    "vertex": "google.genai",
    "vertex-claude": "anthropic",
    "converse": "boto3",
    "invoke": "boto3",
    "cohere": "cohere",
    "rerank": "cohere",
    "ollama": "ollama",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=sorted(FORMATS))
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-tokens", type=int, default=1000)
    parser.add_argument("--tools", default="", help="names of tools to declare, separated by commas")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--number", type=int, default=2, help="documents to rank, images to make, or seconds to hear")
    parser.add_argument("--response-format", default="")
    return parser.parse_args()


PROMPT = "Say hello."
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}


def names(args):
    return [name for name in args.tools.split(",") if name]


def responses(args):
    import openai

    client = openai.OpenAI()
    tools = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in names(args)]
    request = {"model": args.model, "input": PROMPT, "max_output_tokens": args.max_tokens, "tools": tools}
    if args.stream:
        with client.responses.stream(**request) as stream:
            for _ in stream:
                pass
            reply = stream.get_final_response()
    else:
        reply = client.responses.create(**request)
    tools = [item.name for item in reply.output if item.type == "function_call"]
    return reply.output_text, tools, reply.usage.model_dump()


def embeddings(args):
    import openai

    reply = openai.OpenAI().embeddings.create(model=args.model, input=PROMPT, encoding_format="float")
    return str(reply.data[0].embedding), [], reply.usage.model_dump()


def gemini(args, vertex=False):
    from google import genai
    from google.genai import types

    declared = [
        types.FunctionDeclaration(name=name, description=name, parameters_json_schema=SCHEMA) for name in names(args)
    ]
    config = types.GenerateContentConfig(
        max_output_tokens=args.max_tokens,
        tools=[types.Tool(function_declarations=declared)] if declared else None,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    if vertex:
        from google.oauth2.credentials import Credentials

        token = Credentials(token=os.environ["VERTEX_API_KEY"])
        client = genai.Client(vertexai=True, project="lab", location="us-central1", credentials=token)
    else:
        client = genai.Client()  # closes its connections when it is collected
    models = client.models
    request = {"model": args.model, "contents": PROMPT, "config": config}
    replies = list(models.generate_content_stream(**request)) if args.stream else [models.generate_content(**request)]
    parts = [part for reply in replies for part in reply.candidates[0].content.parts or []]
    tools = [part.function_call.name for part in parts if part.function_call]
    return "".join(part.text or "" for part in parts), tools, replies[-1].usage_metadata.model_dump(mode="json")


def vertex(args):
    return gemini(args, vertex=True)


def vertex_claude(args):
    import anthropic

    token = os.environ["VERTEX_API_KEY"]
    client = anthropic.AnthropicVertex(project_id="lab", region="us-central1", access_token=token)
    tools = [{"name": name, "description": name, "input_schema": SCHEMA} for name in names(args)]
    request = {
        "model": args.model,
        "max_tokens": args.max_tokens,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    if tools:
        request["tools"] = tools
    if args.stream:
        with client.messages.stream(**request) as stream:
            for _ in stream:
                pass
            reply = stream.get_final_message()
    else:
        reply = client.messages.create(**request)
    text = "".join(block.text for block in reply.content if block.type == "text")
    return text, [block.name for block in reply.content if block.type == "tool_use"], reply.usage.model_dump()


def ollama(args):
    import ollama

    client = ollama.Client(
        host="https://ollama.com", headers={"Authorization": "Bearer " + os.environ["OLLAMA_API_KEY"]}
    )
    request = {"model": args.model, "messages": [{"role": "user", "content": PROMPT}]}
    request["options"] = {"num_predict": args.max_tokens}
    if names(args):
        request["tools"] = [
            {"type": "function", "function": {"name": name, "description": name, "parameters": SCHEMA}}
            for name in names(args)
        ]
    replies = list(client.chat(**request, stream=True)) if args.stream else [client.chat(**request)]
    tools = [call.function.name for reply in replies for call in reply.message.tool_calls or []]
    usage = {"input": replies[-1].prompt_eval_count, "output": replies[-1].eval_count}
    return "".join(reply.message.content or "" for reply in replies), tools, usage


def completions(args):
    import openai

    request = {"model": args.model, "prompt": PROMPT, "max_tokens": args.max_tokens}
    client = openai.OpenAI()
    if args.stream:
        parts = list(client.completions.create(**request, stream=True))
        return "".join(choice.text for part in parts for choice in part.choices), [], len(parts)
    reply = client.completions.create(**request)
    return reply.choices[0].text, [], reply.usage.model_dump()


def told(usage):
    return usage.model_dump() if usage else None


def images(args, **edit):
    import openai

    client = openai.OpenAI().images
    make = client.edit if edit else client.generate
    request = {"model": args.model, "prompt": PROMPT, "n": args.number, "quality": "low", "size": "1024x1024"} | edit
    if args.stream:
        events = list(make(**request, stream=True, partial_images=1))
        return " ".join(event.type for event in events), [], told(events[-1].usage)
    reply = make(**request)
    return str(len(reply.data)), [], told(reply.usage)


def edit(args):
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    return images(args, image=[("one.png", png), ("two.png", png)])


def speech(args):
    import openai

    how = {"stream_format": "sse"} if args.stream else {}
    reply = openai.OpenAI().audio.speech.create(model=args.model, voice="alloy", input=PROMPT, **how)
    return reply.read().decode("latin-1"), [], None


def transcribe(args):
    import io
    import wave

    import openai

    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000 * args.number))
    how = {"response_format": args.response_format} if args.response_format else {}
    file = ("speech.wav", sound.getvalue())
    client = openai.OpenAI().audio.transcriptions
    if args.stream:
        events = list(client.create(model=args.model, file=file, stream=True, **how))
        return events[-1].text, [], told(events[-1].usage)
    reply = client.create(model=args.model, file=file, **how)
    return (reply, [], None) if isinstance(reply, str) else (reply.text, [], told(reply.usage))


def video(args):
    import openai

    body = {"model": args.model, "prompt": PROMPT}
    return str(openai.OpenAI().post("/videos", body=body, cast_to=object)), [], None


def moderation(args):
    import openai

    return str(openai.OpenAI().moderations.create(model=args.model, input=PROMPT).results[0].flagged), [], None


def rerank(args):
    import cohere

    reply = cohere.ClientV2().rerank(model=args.model, query=PROMPT, documents=["a document"] * args.number)
    return str(len(reply.results)), [], reply.meta.billed_units.search_units


def bedrock():
    import boto3

    # an empty token would still be used, and the key pair not
    if not os.environ.get("AWS_BEARER_TOKEN_BEDROCK"):
        os.environ.pop("AWS_BEARER_TOKEN_BEDROCK", None)
    return boto3.client("bedrock-runtime", region_name="us-east-1")


def converse(args):
    request = {
        "modelId": args.model,
        "messages": [{"role": "user", "content": [{"text": PROMPT}]}],
        "inferenceConfig": {"maxTokens": args.max_tokens},
    }
    if names(args):
        spec = [{"toolSpec": {"name": name, "inputSchema": {"json": SCHEMA}}} for name in names(args)]
        request["toolConfig"] = {"tools": spec}
    text, tools, usage = "", [], None
    if args.stream:
        for event in bedrock().converse_stream(**request)["stream"]:
            start = event.get("contentBlockStart", {}).get("start", {})
            tools += [start["toolUse"]["name"]] if "toolUse" in start else []
            text += event.get("contentBlockDelta", {}).get("delta", {}).get("text", "")
            usage = event.get("metadata", {}).get("usage", usage)
        return text, tools, usage
    reply = bedrock().converse(**request)
    for block in reply["output"]["message"]["content"]:
        text += block.get("text", "")
        tools += [block["toolUse"]["name"]] if "toolUse" in block else []
    return text, tools, reply["usage"]


def invoke(args):
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": args.max_tokens,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    if names(args):
        body["tools"] = [{"name": name, "input_schema": SCHEMA} for name in names(args)]
    reply = json.loads(bedrock().invoke_model(modelId=args.model, body=json.dumps(body))["body"].read())
    text = "".join(block.get("text", "") for block in reply["content"])
    return text, [block["name"] for block in reply["content"] if block["type"] == "tool_use"], reply["usage"]


def cohere(args):
    import cohere

    client = cohere.ClientV2()
    request = {
        "model": args.model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": args.max_tokens,
    }
    if names(args):
        request["tools"] = [
            {"type": "function", "function": {"name": name, "description": name, "parameters": SCHEMA}}
            for name in names(args)
        ]
    if args.stream:
        text, tools, usage = "", [], None
        for event in client.chat_stream(**request):
            if event.type == "content-delta":
                text += event.delta.message.content.text
            elif event.type == "tool-call-start":
                tools.append(event.delta.message.tool_calls.function.name)
            elif event.type == "message-end":
                usage = event.delta.usage.model_dump()
        return text, tools, usage
    reply = client.chat(**request)
    text = "".join(item.text for item in reply.message.content or [])
    return text, [call.function.name for call in reply.message.tool_calls or []], reply.usage.model_dump()


def refused(error):
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return {"status": status, "code": response["Error"]["Code"], "message": response["Error"]["Message"]}
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    body = getattr(error, "body", None)
    code = body.get("guard", {}).get("code") if isinstance(body, dict) else None
    return {"status": status, "code": code or getattr(error, "status", None), "message": str(error)}


def main():
    logging.disable(logging.WARNING)
    args = arguments()
    importlib.import_module(FORMATS[args.format])  # takes seconds on a busy machine, and is not the call's time
    begun = time.monotonic()
    try:
        text, tools, usage = globals()[args.format.replace("-", "_")](args)
        outcome = {"ok": True, "text": text, "tools": tools, "usage": usage}
    except Exception as error:  # whatever the SDK raises is the result
        outcome = {"ok": False, "exception": type(error).__name__} | refused(error)
    print(json.dumps(outcome | {"seconds": round(time.monotonic() - begun, 3)}), flush=True)


main()
