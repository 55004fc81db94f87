/** node node.mjs SCRIPTS MODEL < tasks > answers */
import {readFileSync} from "node:fs";
import {pathToFileURL} from "node:url";
import {run} from "./tasks.js";

const [scripts, path] = process.argv.slice(2), {buffer, byteOffset, length} = readFileSync(path);
const tasks = JSON.parse(readFileSync(0, "utf-8"));
const file = buffer.slice(byteOffset, byteOffset + length);
const answers = await run(pathToFileURL(scripts).href, file, tasks);
process.stdout.write(JSON.stringify(answers));
