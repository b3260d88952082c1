"""One tool-call round trip with a vendor's own unmodified SDK: no base URL, key and trust from the environment.

    sdk.py NAME [--stream]

Asks for the weather, answers the model's tool call, prints the final text. What an SDK raises is printed as it is and
ends the script with 1: that is what a person would see.
"""

import asyncio
import json
import os
import sys

QUESTION = "What is the weather in Paris?"
TOOL = "get_weather"
PURPOSE = "The weather of a city."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = "sunny, 21 degrees"
# litellm would otherwise fetch its price list from a host that an agent may not reach, and wait for it at its end
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

GPT, CLAUDE, GEMINI = "gpt-5", "claude-haiku-4-5", "gemini-2.5-flash"
MISTRAL, COMMAND = "mistral-small-latest", "command-a-03-2025"


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: {WEATHER}"


def openai_chat(stream):
    import openai

    client = openai.OpenAI()
    messages = [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "function": {"name": TOOL, "description": PURPOSE, "parameters": SCHEMA}}]

    def ask():
        if not stream:
            return client.chat.completions.create(model=GPT, messages=messages, tools=tools).choices[0].message
        text, calls = "", {}
        for chunk in client.chat.completions.create(model=GPT, messages=messages, tools=tools, stream=True):
            delta = chunk.choices[0].delta
            text += delta.content or ""
            for call in delta.tool_calls or []:
                known = calls.setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
                known["arguments"] += call.function.arguments or ""
        from types import SimpleNamespace as Some

        calls = [Some(id=c["id"], function=Some(name=c["name"], arguments=c["arguments"])) for c in calls.values()]
        return Some(content=text, tool_calls=calls)

    message = ask()
    while message.tool_calls:
        calls = [
            {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
            for c in message.tool_calls
        ]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        for call in message.tool_calls:
            said = get_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
        message = ask()
    return message.content


def openai_responses(stream):
    import openai

    client = openai.OpenAI()
    items = [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "name": TOOL, "description": PURPOSE, "parameters": SCHEMA}]

    def ask():
        if not stream:
            return client.responses.create(model=GPT, input=items, tools=tools, store=False)
        with client.responses.stream(model=GPT, input=items, tools=tools, store=False) as events:
            for _ in events:
                pass
            return events.get_final_response()

    while True:
        response = ask()
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text
        for call in calls:
            items.append({"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments})
            said = get_weather(**json.loads(call.arguments))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": said})


def anthropic(stream):
    import anthropic

    client = anthropic.Anthropic()
    messages = [{"role": "user", "content": QUESTION}]
    tools = [{"name": TOOL, "description": PURPOSE, "input_schema": SCHEMA}]
    while True:
        request = {"model": CLAUDE, "max_tokens": 1000, "messages": messages, "tools": tools}
        if stream:
            with client.messages.stream(**request) as events:
                message = events.get_final_message()
        else:
            message = client.messages.create(**request)
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            return "".join(block.text for block in message.content if block.type == "text")
        blocks = [{"type": "tool_use", "id": c.id, "name": c.name, "input": c.input} for c in calls]
        messages.append({"role": "assistant", "content": blocks})
        results = [{"type": "tool_result", "tool_use_id": c.id, "content": get_weather(**c.input)} for c in calls]
        messages.append({"role": "user", "content": results})


def google_genai(stream):
    from google import genai
    from google.genai import types

    client = genai.Client()
    declared = types.FunctionDeclaration(name=TOOL, description=PURPOSE, parameters_json_schema=SCHEMA)
    manual = types.AutomaticFunctionCallingConfig(disable=True)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])], automatic_function_calling=manual
    )
    contents = [types.Content(role="user", parts=[types.Part(text=QUESTION)])]
    while True:
        if stream:
            parts = []
            for chunk in client.models.generate_content_stream(model=GEMINI, contents=contents, config=config):
                parts += chunk.candidates[0].content.parts or [] if chunk.candidates else []
        else:
            reply = client.models.generate_content(model=GEMINI, contents=contents, config=config)
            parts = reply.candidates[0].content.parts
        calls = [part.function_call for part in parts if part.function_call]
        if not calls:
            return "".join(part.text or "" for part in parts)
        contents.append(types.Content(role="model", parts=parts))
        results = [types.Part.from_function_response(name=c.name, response={"result": get_weather(**c.args)}) for c in calls]
        contents.append(types.Content(role="user", parts=results))


def mistralai(stream):
    from mistralai.client import Mistral

    client = Mistral(api_key=os.environ["MISTRAL_API_KEY"])
    messages = [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "function": {"name": TOOL, "description": PURPOSE, "parameters": SCHEMA}}]
    while True:
        if stream:
            text, calls = "", []
            for event in client.chat.stream(model=MISTRAL, messages=messages, tools=tools):
                delta = event.data.choices[0].delta if event.data.choices else None
                text += (delta and delta.content) or ""
                calls += (delta and delta.tool_calls) or []
        else:
            message = client.chat.complete(model=MISTRAL, messages=messages, tools=tools).choices[0].message
            text, calls = message.content, message.tool_calls or []
        # a stream may bring the arguments in a second part of the same call
        whole = {}
        for call in calls:
            known = whole.setdefault(call.index or 0, {"id": call.id, "name": call.function.name, "arguments": ""})
            arguments = call.function.arguments
            known["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
        if not whole:
            return text
        messages.append({"role": "assistant", "content": "", "tool_calls": [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in whole.values()
        ]})
        for call in whole.values():
            said = get_weather(**json.loads(call["arguments"]))
            messages.append({"role": "tool", "name": TOOL, "tool_call_id": call["id"], "content": said})


def cohere(stream):
    import cohere

    client = cohere.ClientV2()
    messages = [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "function": {"name": TOOL, "description": PURPOSE, "parameters": SCHEMA}}]
    while True:
        if stream:
            text, calls = "", []
            for event in client.chat_stream(model=COMMAND, messages=messages, tools=tools):
                if event.type == "content-delta":
                    text += event.delta.message.content.text or ""
                elif event.type == "tool-call-start":
                    call = event.delta.message.tool_calls
                    calls.append({"id": call.id, "name": call.function.name, "arguments": call.function.arguments or ""})
                elif event.type == "tool-call-delta":
                    calls[-1]["arguments"] += event.delta.message.tool_calls.function.arguments or ""
        else:
            message = client.chat(model=COMMAND, messages=messages, tools=tools).message
            text = "".join(part.text for part in message.content or [])
            calls = [
                {"id": c.id, "name": c.function.name, "arguments": c.function.arguments} for c in message.tool_calls or []
            ]
        if not calls:
            return text
        messages.append({"role": "assistant", "tool_calls": [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls
        ]})
        for call in calls:
            said = get_weather(**json.loads(call["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})


def litellm(model):
    def run(stream):
        import litellm

        messages = [{"role": "user", "content": QUESTION}]
        tools = [{"type": "function", "function": {"name": TOOL, "description": PURPOSE, "parameters": SCHEMA}}]
        while True:
            reply = litellm.completion(model=model, messages=messages, tools=tools, stream=stream)
            if stream:
                reply = litellm.stream_chunk_builder(list(reply))
            message = reply.choices[0].message
            if not message.tool_calls:
                return message.content
            messages.append(message.model_dump())
            for call in message.tool_calls:
                said = get_weather(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": said})

    return run


def litellm_responses(stream):
    import litellm

    items = [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "name": TOOL, "description": PURPOSE, "parameters": SCHEMA}]
    while True:
        response = litellm.responses(model="openai/" + GPT, input=items, tools=tools, store=False, stream=stream)
        if stream:
            response = [event.response for event in response if event.type == "response.completed"][0]
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return "".join(part.text for item in response.output if item.type == "message" for part in item.content)
        for call in calls:
            items.append({"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments})
            said = get_weather(**json.loads(call.arguments))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": said})


def langchain(**options):
    def run(stream):
        from langchain_core.messages import HumanMessage
        from langchain_core.tools import tool
        from langchain_openai import ChatOpenAI

        weather = tool(get_weather)
        model = ChatOpenAI(model=GPT, **options).bind_tools([weather])
        messages = [HumanMessage(QUESTION)]
        while True:
            if stream:
                message = None
                for chunk in model.stream(messages):
                    message = chunk if message is None else message + chunk
            else:
                message = model.invoke(messages)
            if not message.tool_calls:
                return message.text() if callable(message.text) else message.text
            messages.append(message)
            messages += [weather.invoke(call) for call in message.tool_calls]

    return run


def pydantic_ai(model):
    def run(stream):
        from pydantic_ai import Agent

        agent = Agent(model, tools=[get_weather])
        if not stream:
            return agent.run_sync(QUESTION).output

        async def streamed():
            async with agent.run_stream(QUESTION) as result:
                return await result.get_output()

        return asyncio.run(streamed())

    return run


def openai_agents(stream):
    from agents import Agent, Runner, function_tool

    agent = Agent(name="weather", model=GPT, tools=[function_tool(get_weather)])
    if not stream:
        return Runner.run_sync(agent, QUESTION).final_output

    async def streamed():
        result = Runner.run_streamed(agent, QUESTION)
        async for _ in result.stream_events():
            pass
        return result.final_output

    return asyncio.run(streamed())


def claude_agent(_stream):
    from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query

    async def ask():
        options = ClaudeAgentOptions(model=CLAUDE, allowed_tools=["Bash"], max_turns=4)
        said = ""
        async for message in query(prompt=QUESTION, options=options):
            if isinstance(message, ResultMessage):
                said = message.result or str(message.errors)
        return said

    return asyncio.run(ask())


CLIENTS = {
    "openai-chat": openai_chat,
    "openai-responses": openai_responses,
    "anthropic": anthropic,
    "google-genai": google_genai,
    "mistralai": mistralai,
    "cohere": cohere,
    "litellm-openai": litellm("openai/" + GPT),
    "litellm-anthropic": litellm("anthropic/" + CLAUDE),
    "litellm-gemini": litellm("gemini/" + GEMINI),
    "litellm-responses": litellm_responses,
    "langchain-openai": langchain(),
    "langchain-openai-responses": langchain(use_responses_api=True),
    "pydantic-ai-openai-responses": pydantic_ai("openai-responses:" + GPT),
    "pydantic-ai-anthropic": pydantic_ai("anthropic:" + CLAUDE),
    "pydantic-ai-google": pydantic_ai("google:" + GEMINI),
    "openai-agents": openai_agents,
    "claude-agent-sdk": claude_agent,
}

if __name__ == "__main__":
    try:
        print(CLIENTS[sys.argv[1]]("--stream" in sys.argv))
    except Exception as error:  # what the SDK raises is what a person would see
        print(f"{type(error).__module__}.{type(error).__name__}: {error}")
        sys.exit(1)
