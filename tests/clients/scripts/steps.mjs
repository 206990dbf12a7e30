// What the JavaScript scripts share, as steps.py does for Python: run each step, print one JSON object.

export const QUESTION = "What is your name?";
export const WEATHER = "What is the weather in Paris?";
export const WEATHER_TOOL = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the weather for a city",
    parameters: {
      type: "object",
      properties: { location: { type: "string", description: "The city" } },
      required: ["location"],
    },
  },
};

export const getWeather = ({ location }) => `22 degrees and sunny in ${location}`;

// Expect `action` to throw; what it threw, as class and words.
export async function failure(action) {
  try {
    await action();
  } catch (error) {
    return { class: error.name === "Error" ? error.constructor.name : error.name, text: error.message };
  }
  return {};
}

// Run every step, whatever becomes of the others, and print the results as the last line.
export async function runSteps(steps) {
  const results = {};
  for (const [name, step] of Object.entries(steps)) {
    try {
      results[name] = { value: await step() };
    } catch (error) {
      results[name] = { error: error.stack };
    }
  }
  console.log(JSON.stringify(results));
}
