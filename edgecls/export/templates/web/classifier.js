// Classifies photos with model.tflite in the browser, by LiteRT.js. For a page of your own:
//
//     import { PhotoClassifier, photoOf } from "./classifier.js";
//     const classifier = await PhotoClassifier.load();
//     for (const { class: label, probability } of await classifier.top(await photoOf(file))) console.log(label, probability);
import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";
import { pixels } from "./preprocess.js";

export class PhotoClassifier {
  // `facts` is the content of model.json; `network` is what LiteRT.js made of model.tflite.
  constructor(facts, network) {
    this.facts = facts;
    this.network = network;
  }

  // Loads the files of this folder. Once a page.
  static async load() {
    const address = (name) => new URL(name, import.meta.url).href;
    const response = await fetch(address("model.json"));
    if (!response.ok) throw new Error(`model.json: ${response.status} ${response.statusText}`);
    const facts = await response.json();
    await loadLiteRt(address("litert/wasm/"));
    return new PhotoClassifier(facts, await loadAndCompile(address("model.tflite"), { accelerator: "wasm" }));
  }

  // The file's scores of an ImageData, which must be opaque: a number for each label.
  async scores(photo) {
    const { preprocess, scale, zero_point: zero } = this.facts;
    const { size } = preprocess;
    const input = new Tensor(pixels(photo, preprocess), [1, size, size, 3]);
    let outputs = [];
    try {
      outputs = await this.network.run([input]);
      const values = Array.from(await outputs[0].data());
      return scale === null ? values : values.map((value) => (value - zero) * scale);
    } finally {
      for (const tensor of [input, ...outputs]) tensor.delete();
    }
  }

  // The `count` likeliest classes, likeliest first: [{class, probability}].
  async top(photo, count = 5) {
    const scores = await this.scores(photo);
    const shares = this.facts.scores === "probabilities" ? scores : softmax(scores);
    const order = shares.map((_, index) => index).sort((a, b) => shares[b] - shares[a]);
    return order.slice(0, count).map((index) => ({ class: this.facts.labels[index], probability: shares[index] }));
  }
}

function softmax(scores) {
  const most = scores.reduce((high, score) => Math.max(high, score), -Infinity);
  const powers = scores.map((score) => Math.exp(score - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

const canvas = document.createElement("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });

// The pixels of what a canvas can draw, on white where it is transparent.
export function photoFrom(source, width, height) {
  [canvas.width, canvas.height] = [width, height];
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// The pixels of an image file, turned as its EXIF data says.
export async function photoOf(file) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  const image = await createImageBitmap(file, options).catch(() => {
    throw new Error("not an image that this browser can read");
  });
  try {
    return photoFrom(image, image.width, image.height);
  } finally {
    image.close();
  }
}
