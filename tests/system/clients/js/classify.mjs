// Calls the client as its arguments (JSON) say, and prints its answer or its error as JSON.
import { readFileSync } from "node:fs";
import { zeroShotImageClassification } from "@huggingface/inference";

const { url, image, legacy, parameters, accessToken } = JSON.parse(process.argv[2]);
const bytes = readFileSync(image);
const blob = new Blob([bytes]);
try {
  const found = await zeroShotImageClassification(
    {
      endpointUrl: url,
      accessToken,
      inputs: legacy ? { image: await blob.arrayBuffer() } : blob,
      parameters,
    },
    { retry_on_error: false },
  );
  console.log(JSON.stringify({ found }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message, status: error.httpResponse?.status }));
}
