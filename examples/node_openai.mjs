// OpenAI's SDK for Node against Farebox: another base URL and key, nothing else. `npm install openai`
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.FAREBOX_URL ?? "http://127.0.0.1:8080"}/v1`,
  apiKey: process.env.FAREBOX_API_KEY,
});
const answer = await client.chat.completions.create({
  model: process.env.FAREBOX_MODEL ?? "local/smollm2-135m-instruct",
  messages: [{ role: "user", content: "Say hello." }],
  max_tokens: 64,
});
console.log(answer.choices[0].message.content);
console.log(`${answer.usage.total_tokens} tokens, $${answer.usage.cost_usd}`);
