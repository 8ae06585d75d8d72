# Answers a greeting for the name in the request's body.
def handle(request, context)
  name = request.body.strip
  name = "world" if name.empty?
  "Hello, #{name}, from Ruby\n"
end
