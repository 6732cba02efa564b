export default {
  test: {
    include: ["suite.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ["json"],
    outputFile: "result.json",
  },
}
