// LangChain for JavaScript.
import { ChatOpenAI } from "@langchain/openai";

const [scenario, baseURL] = process.argv.slice(2);
const messages = [["system", "Be brief."], ["human", "When does the gate open?"]];
const model = (options) => new ChatOpenAI({ model: "tiny", apiKey: "none", configuration: { baseURL }, ...options });

if (scenario === "chat") {
  await model().invoke(messages);
} else if (scenario === "stream") {
  for await (const chunk of await model().stream(messages)) void chunk;
} else if (scenario === "responses") {
  await model({ useResponsesApi: true }).invoke(messages);
} else {
  process.exit(64);
}
