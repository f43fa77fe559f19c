// Reads texts as JSON strings, one a line, and prints what sms-segments-calculator makes of each: encoding and segments.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const { SegmentedMessage } = createRequire(import.meta.url)("sms-segments-calculator");

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const message = new SegmentedMessage(JSON.parse(line));
  process.stdout.write(JSON.stringify([message.getEncodingName(), message.segmentsCount]) + "\n");
}
