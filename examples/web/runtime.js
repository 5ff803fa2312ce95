// onnxruntime-web: which one, where from, and its hashes.
"use strict";

const VERSION = "1.30.0";
const ELSEWHERE = `https://cdn.jsdelivr.net/npm/onnxruntime-web@${VERSION}/dist/`;
const HERE = "vendor/"; // a copy of the runtime beside the page is preferred
// every file of it is checked, wherever it is from
const RUNTIME = {
  "ort.wasm.min.js": "sha384-Bw6URI+Gvoadw0do7/QrSHUC9D1vCYYK5OSqChFyhyV5mzPL4oe2rOAFljAnS8Sq",
  "ort-wasm-simd-threaded.mjs": "sha384-XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56BIFFcAPerIF7FDad",
  "ort-wasm-simd-threaded.wasm": "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
};

/** Fetches a file of the runtime, which the browser refuses if its hash is another one. */
async function fetched(folder, name) {
  const response = await fetch(folder + name, {integrity: RUNTIME[name], credentials: "omit"});
  if (!response.ok) throw new Error(response.statusText);
  const type = name.endsWith(".wasm") ? "application/wasm" : "text/javascript";
  return URL.createObjectURL(new Blob([await response.arrayBuffer()], {type}));
}

async function load(folder) {
  const [source, mjs, wasm] = await Promise.all(Object.keys(RUNTIME).map((name) => fetched(folder, name)));
  await new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, {src: source, onload: resolve, onerror: reject});
    document.head.append(script);
  });
  ort.env.wasm.wasmPaths = {mjs, wasm};
  ort.env.wasm.proxy = true; // in a worker, so that the page stays alive
}

let started = null;

/** Loads onnxruntime-web, once. */
function runtime() {
  if (started === null) {
    // browsers load no modules from a disk, and the runtime's copy would be one
    const first = location.protocol === "file:" ? Promise.reject() : load(HERE);
    started = first.catch(() => load(ELSEWHERE)).catch(() => {
      started = null;
      throw new Refusal(`onnxruntime-web ${VERSION} cannot be loaded, neither from ${HERE} nor from ${ELSEWHERE}: it ` +
        "is not there, or its files are not those of that version.");
    });
  }
  return started;
}
