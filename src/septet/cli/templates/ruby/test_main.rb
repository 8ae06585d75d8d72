# Run with: ruby test_main.rb
require "minitest/autorun"
require_relative "main"

class GreetingTest < Minitest::Test
  Request = Struct.new(:body)

  def test_names_whom_it_greets
    assert_equal "Hello, Ada!\n", handle(Request.new("Ada"), nil)
  end

  def test_greets_the_world_by_default
    assert_equal "Hello, world!\n", handle(Request.new(""), nil)
  end
end
