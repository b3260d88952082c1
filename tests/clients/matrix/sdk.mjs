// One tool-call round trip with a vendor's own unmodified SDK for Node: no base URL, key and trust from the environment.
//
//     sdk.mjs NAME [--stream]
//
// Asks for the weather, answers the model's tool call, prints the final text. What an SDK throws is printed as it is and
// ends the script with 1: that is what a person would see. The packages are found from NODE_PACKAGES.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.NODE_PACKAGES + "/package.json");
const load = async (name) => {
  try {
    return await import(pathToFileURL(require.resolve(name)));
  } catch {
    // a package that shows itself to import only
    const root = process.env.NODE_PACKAGES + "/node_modules/" + name;
    const { module, main } = require(root + "/package.json");
    return await import(root + "/" + (module ?? main));
  }
};

const QUESTION = "What is the weather in Paris?";
const TOOL = "get_weather";
const PURPOSE = "The weather of a city.";
const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = ({ city }) => `${city}: sunny, 21 degrees`;
const GPT = "gpt-5", CLAUDE = "claude-haiku-4-5", GEMINI = "gemini-2.5-flash";
const MISTRAL = "mistral-small-latest", COMMAND = "command-a-03-2025";

async function openaiChat(stream) {
  const { default: OpenAI } = await load("openai");
  const client = new OpenAI();
  const messages = [{ role: "user", content: QUESTION }];
  const tools = [{ type: "function", function: { name: TOOL, description: PURPOSE, parameters: SCHEMA } }];
  for (;;) {
    const request = { model: GPT, messages, tools };
    const message = stream
      ? await client.chat.completions.stream(request).finalMessage()
      : (await client.chat.completions.create(request)).choices[0].message;
    if (!message.tool_calls?.length) return message.content;
    messages.push({ role: "assistant", content: null, tool_calls: message.tool_calls });
    for (const call of message.tool_calls) {
      messages.push({ role: "tool", tool_call_id: call.id, content: weather(JSON.parse(call.function.arguments)) });
    }
  }
}

async function openaiResponses(stream) {
  const { default: OpenAI } = await load("openai");
  const client = new OpenAI();
  const input = [{ role: "user", content: QUESTION }];
  const tools = [{ type: "function", name: TOOL, description: PURPOSE, parameters: SCHEMA, strict: false }];
  for (;;) {
    const request = { model: GPT, input, tools, store: false };
    const response = stream ? await client.responses.stream(request).finalResponse() : await client.responses.create(request);
    const calls = response.output.filter((item) => item.type === "function_call");
    if (!calls.length) return response.output_text;
    for (const { call_id, name, arguments: text } of calls) {
      input.push({ type: "function_call", call_id, name, arguments: text });
      input.push({ type: "function_call_output", call_id, output: weather(JSON.parse(text)) });
    }
  }
}

async function anthropic(stream) {
  const { default: Anthropic } = await load("@anthropic-ai/sdk");
  const client = new Anthropic();
  const messages = [{ role: "user", content: QUESTION }];
  const tools = [{ name: TOOL, description: PURPOSE, input_schema: SCHEMA }];
  for (;;) {
    const request = { model: CLAUDE, max_tokens: 1000, messages, tools };
    const message = stream ? await client.messages.stream(request).finalMessage() : await client.messages.create(request);
    const calls = message.content.filter((block) => block.type === "tool_use");
    if (!calls.length) return message.content.map((block) => block.text ?? "").join("");
    messages.push({ role: "assistant", content: message.content });
    messages.push({
      role: "user",
      content: calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: weather(call.input) })),
    });
  }
}

async function googleGenai(stream) {
  const { GoogleGenAI } = await load("@google/genai");
  const client = new GoogleGenAI({ apiKey: process.env.GEMINI_API_KEY });
  const contents = [{ role: "user", parts: [{ text: QUESTION }] }];
  const config = { tools: [{ functionDeclarations: [{ name: TOOL, description: PURPOSE, parametersJsonSchema: SCHEMA }] }] };
  for (;;) {
    const request = { model: GEMINI, contents, config };
    const parts = [];
    if (stream) {
      for await (const chunk of await client.models.generateContentStream(request)) {
        parts.push(...(chunk.candidates?.[0]?.content?.parts ?? []));
      }
    } else {
      parts.push(...(await client.models.generateContent(request)).candidates[0].content.parts);
    }
    const calls = parts.filter((part) => part.functionCall).map((part) => part.functionCall);
    if (!calls.length) return parts.map((part) => part.text ?? "").join("");
    contents.push({ role: "model", parts });
    contents.push({
      role: "user",
      parts: calls.map(({ name, args }) => ({ functionResponse: { name, response: { result: weather(args) } } })),
    });
  }
}

async function mistralai(stream) {
  const { Mistral } = await load("@mistralai/mistralai");
  const client = new Mistral({ apiKey: process.env.MISTRAL_API_KEY });
  const messages = [{ role: "user", content: QUESTION }];
  const tools = [{ type: "function", function: { name: TOOL, description: PURPOSE, parameters: SCHEMA } }];
  for (;;) {
    const request = { model: MISTRAL, messages, tools };
    let text = "", calls = [];
    if (stream) {
      for await (const { data } of await client.chat.stream(request)) {
        text += data.choices[0]?.delta.content ?? "";
        calls.push(...(data.choices[0]?.delta.toolCalls ?? []));
      }
    } else {
      const { message } = (await client.chat.complete(request)).choices[0];
      text = message.content;
      calls = message.toolCalls ?? [];
    }
    if (!calls.length) return text;
    messages.push({ role: "assistant", content: "", toolCalls: calls });
    for (const call of calls) {
      const given = call.function.arguments;
      const said = weather(typeof given === "string" ? JSON.parse(given) : given);
      messages.push({ role: "tool", name: TOOL, toolCallId: call.id, content: said });
    }
  }
}

async function cohere(stream) {
  const { CohereClientV2 } = await load("cohere-ai");
  const client = new CohereClientV2({ token: process.env.CO_API_KEY });
  const messages = [{ role: "user", content: QUESTION }];
  const tools = [{ type: "function", function: { name: TOOL, description: PURPOSE, parameters: SCHEMA } }];
  for (;;) {
    const request = { model: COMMAND, messages, tools };
    let text = "", calls = [];
    if (stream) {
      for await (const event of await client.chatStream(request)) {
        if (event.type === "content-delta") text += event.delta.message.content.text ?? "";
        if (event.type === "tool-call-start") calls.push(event.delta.message.toolCalls);
        if (event.type === "tool-call-delta") calls.at(-1).function.arguments += event.delta.message.toolCalls.function.arguments;
      }
    } else {
      const { message } = await client.chat(request);
      text = (message.content ?? []).map((part) => part.text ?? "").join("");
      calls = message.toolCalls ?? [];
    }
    if (!calls.length) return text;
    messages.push({ role: "assistant", toolCalls: calls });
    for (const call of calls) {
      messages.push({ role: "tool", toolCallId: call.id, content: weather(JSON.parse(call.function.arguments)) });
    }
  }
}

const vercel = (maker, model) => async (stream) => {
  const { generateText, streamText, tool, jsonSchema, stepCountIs, isStepCount } = await load("ai");
  const provider = await maker();
  const tools = { [TOOL]: tool({ description: PURPOSE, inputSchema: jsonSchema(SCHEMA), execute: async (input) => weather(input) }) };
  const request = { model: provider(model), prompt: QUESTION, tools, stopWhen: (stepCountIs ?? isStepCount)(3) };
  if (!stream) return (await generateText(request)).text;
  let failed;
  const result = streamText({ ...request, onError: ({ error }) => { failed = error; } });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  if (failed) throw failed;
  return text;
};

const CLIENTS = {
  "openai-chat": openaiChat,
  "openai-responses": openaiResponses,
  anthropic,
  "google-genai": googleGenai,
  mistralai,
  cohere,
  "ai-openai": vercel(async () => (await load("@ai-sdk/openai")).openai, GPT),
  "ai-anthropic": vercel(async () => (await load("@ai-sdk/anthropic")).anthropic, CLAUDE),
  "ai-google": vercel(async () => (await load("@ai-sdk/google")).createGoogleGenerativeAI({ apiKey: process.env.GEMINI_API_KEY }), GEMINI),
};

try {
  console.log(await CLIENTS[process.argv[2]](process.argv.includes("--stream")));
} catch (error) {
  console.log(`${error?.constructor?.name}: ${error?.message}`);
  process.exit(1);
}
