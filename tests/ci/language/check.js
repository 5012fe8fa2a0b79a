// What GitHub's language service says of workflows and actions: reads files and the catalogue of actions as JSON from
// stdin, writes the messages by file to stdout.
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";

// The package imports JSON without saying so, which is for bundlers: Node wants the attribute.
registerHooks({
  load(url, context, next) {
    return next(url, url.endsWith(".json") ? { ...context, importAttributes: { type: "json" } } : context);
  },
});
const { validate } = await import("@actions/languageservice/validate");
const { TextDocument } = await import("vscode-languageserver-textdocument");

const { catalogue, files } = JSON.parse(readFileSync(0, "utf8"));
const actionsMetadataProvider = {
  async fetchActionMetadata({ owner, name, ref, path }) {
    const known = catalogue[[owner, name, path].filter(Boolean).join("/")];
    if (known?.sha !== ref) return undefined;
    const inputs = known.inputs.map((input) => [input, { description: "", required: known.required.includes(input) }]);
    return { name, description: "", inputs: Object.fromEntries(inputs) };
  },
};
const said = {};
for (const [file, text] of Object.entries(files)) {
  const document = TextDocument.create(`file:///repository/.github/${file}`, "yaml", 1, text);
  const found = await validate(document, { actionsMetadataProvider });
  said[file] = found.map((each) => `line ${each.range.start.line + 1}: ${each.message}`);
}
process.stdout.write(JSON.stringify(said));
