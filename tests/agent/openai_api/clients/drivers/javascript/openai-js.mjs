// The official package for JavaScript.
import OpenAI from "openai";

const [scenario, baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none" });
const messages = [{ role: "system", content: "Be brief." }, { role: "user", content: "When does the gate open?" }];

if (scenario === "chat") {
  await client.chat.completions.create({ model: "tiny", messages });
} else if (scenario === "stream") {
  for await (const chunk of client.chat.completions.stream({ model: "tiny", messages })) void chunk;
} else if (scenario === "responses") {
  await client.responses.create({ model: "tiny", input: "When does the gate open?" });
} else if (scenario === "responses-stream") {
  for await (const event of client.responses.stream({ model: "tiny", input: messages })) void event;
} else {
  process.exit(64);
}
