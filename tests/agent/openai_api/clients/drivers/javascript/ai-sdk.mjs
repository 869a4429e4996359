// The AI SDK with its provider for OpenAI-compatible servers, and with its OpenAI provider (Responses by default).
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText } from "ai";
import { z } from "zod";

const [scenario, baseURL] = process.argv.slice(2);
const compatible = createOpenAICompatible({
  name: "board", baseURL, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true,
})("tiny");
const openai = createOpenAI({ baseURL, apiKey: "none" })("tiny");
const prompt = "When does the gate open?";
const system = "Be brief.";

if (scenario === "chat") {
  await generateText({ model: compatible, system, prompt });
} else if (scenario === "stream") {
  for await (const text of streamText({ model: compatible, system, prompt }).textStream) void text;
} else if (scenario === "json") {
  await generateObject({ model: compatible, prompt, schema: z.object({ answer: z.enum(["six", "seven"]) }) });
} else if (scenario === "responses") {
  await generateText({ model: openai, system, prompt });
} else if (scenario === "responses-stream") {
  for await (const text of streamText({ model: openai, system, prompt }).textStream) void text;
} else {
  process.exit(64);
}
