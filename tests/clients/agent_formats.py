"""What `agent.py` says to each further format, through its vendor's own unmodified SDK: a conversation of texts of the
user and of tool calls with their results, and the tool that the model calls next.
"""

import json
import os

SYSTEM_PROMPT = "You are a coding agent."


class Responses:
    name = "openai"

    def __init__(self):
        import openai

        self.client = openai.OpenAI()

    def ask(self, turns, _stream):
        request = {"model": "gpt-5", "max_output_tokens": 500, "instructions": SYSTEM_PROMPT, "store": False}
        reply = self.client.responses.create(**request, input=self.items(turns))
        for item in reply.output:
            if item.type == "function_call":
                return item.name, json.loads(item.arguments)
        return None

    def items(self, turns):
        told = []
        for number, turn in enumerate(turns):
            if isinstance(turn, str):
                told.append({"role": "user", "content": turn})
                continue
            name, given, result, _failed = turn
            call = f"call_{number}"
            told.append({"type": "function_call", "call_id": call, "name": name, "arguments": json.dumps(given)})
            told.append({"type": "function_call_output", "call_id": call, "output": result})
        return told


class Gemini:
    name = "gemini"

    def __init__(self):
        from google import genai

        self.client = genai.Client()

    def ask(self, turns, _stream):
        from google.genai import types

        config = types.GenerateContentConfig(max_output_tokens=500, system_instruction=SYSTEM_PROMPT)
        contents = list(self.contents(turns, types))
        models = self.client.models
        reply = models.generate_content(model="gemini-2.5-flash", contents=contents, config=config)
        for part in reply.candidates[0].content.parts or []:
            if part.function_call:
                return part.function_call.name, part.function_call.args
        return None

    def contents(self, turns, types):
        for turn in turns:
            if isinstance(turn, str):
                yield types.Content(role="user", parts=[types.Part(text=turn)])
                continue
            name, given, result, failed = turn
            response = {"error" if failed else "result": result}
            call = types.FunctionCall(name=name, args=given)
            yield types.Content(role="model", parts=[types.Part(function_call=call)])
            answer = types.FunctionResponse(name=name, response=response)
            yield types.Content(role="user", parts=[types.Part(function_response=answer)])


class Converse:
    name = "bedrock"

    def __init__(self):
        import boto3

        # an empty token would still be used, and the key pair not
        if not os.environ.get("AWS_BEARER_TOKEN_BEDROCK"):
            os.environ.pop("AWS_BEARER_TOKEN_BEDROCK", None)
        self.client = boto3.client("bedrock-runtime", region_name="us-east-1")

    def ask(self, turns, _stream):
        reply = self.client.converse(
            modelId="us.anthropic.claude-haiku-4-5-20251001-v1:0",
            system=[{"text": SYSTEM_PROMPT}],
            messages=self.messages(turns),
            inferenceConfig={"maxTokens": 500},
        )
        for block in reply["output"]["message"]["content"]:
            if "toolUse" in block:
                return block["toolUse"]["name"], block["toolUse"]["input"]
        return None

    def messages(self, turns):
        told = []
        for number, turn in enumerate(turns):
            if isinstance(turn, str):
                told.append({"role": "user", "content": [{"text": turn}]})
                continue
            name, given, result, failed = turn
            used = {"toolUseId": f"tool_{number}", "name": name, "input": given}
            status = "error" if failed else "success"
            got = {"toolUseId": used["toolUseId"], "content": [{"text": result}], "status": status}
            told.append({"role": "assistant", "content": [{"toolUse": used}]})
            told.append({"role": "user", "content": [{"toolResult": got}]})
        return told


class Cohere:
    name = "cohere"

    def __init__(self):
        import cohere

        self.client = cohere.ClientV2()

    def ask(self, turns, _stream):
        told = [{"role": "system", "content": SYSTEM_PROMPT}, *messages(turns)]
        reply = self.client.chat(model="command-a-03-2025", messages=told, max_tokens=500)
        for call in reply.message.tool_calls or []:
            return call.function.name, json.loads(call.function.arguments)
        return None


class Ollama:
    name = "ollama"

    def __init__(self):
        import ollama

        headers = {"Authorization": "Bearer " + os.environ["OLLAMA_API_KEY"]}
        self.client = ollama.Client(host="https://ollama.com", headers=headers)

    def ask(self, turns, _stream):
        told = [{"role": "system", "content": SYSTEM_PROMPT}]
        for message in messages(turns):
            # arguments are an object here, and calls have no ids
            for call in message.get("tool_calls", []):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            told.append(message)
        reply = self.client.chat(model="gpt-oss:120b", messages=told, options={"num_predict": 500})
        for call in reply.message.tool_calls or []:
            return call.function.name, dict(call.function.arguments)
        return None


def messages(turns):
    """As Cohere's chat has them, and with small differences Ollama's."""
    for number, turn in enumerate(turns):
        if isinstance(turn, str):
            yield {"role": "user", "content": turn}
            continue
        name, given, result, _failed = turn
        call = {"id": f"call_{number}", "type": "function"}
        call["function"] = {"name": name, "arguments": json.dumps(given)}
        yield {"role": "assistant", "tool_calls": [call]}
        yield {"role": "tool", "tool_call_id": call["id"], "content": result}


FORMATS = {
    "responses": Responses,
    "gemini": Gemini,
    "converse": Converse,
    "cohere": Cohere,
    "ollama": Ollama,
}


def code(error):
    """The reason in an error of these SDKs."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        return response["Error"]["Code"]
    body = getattr(error, "body", None)
    guard = body.get("guard", {}).get("code") if isinstance(body, dict) else None
    return guard or getattr(error, "status", None)
