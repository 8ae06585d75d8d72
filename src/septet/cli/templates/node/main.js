// The function __NAME__: answers a greeting for the name in the request's body.
exports.handle = async (request, context) => {
  const name = (await request.text()).trim() || "world";
  return `Hello, ${name}!\n`;
};
