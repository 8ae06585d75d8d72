# frozen_string_literal: true

# Starts a Ruby function: loads its handler and serves calls on the frame link (docs/frames.md).

TOPLEVEL = self

require_relative "septet/link"
require_relative "septet/request"
require_relative "septet/reply"
require_relative "septet/output"
require_relative "septet/loading"

module Septet
  MOST_THREADS = 64
  HERE = __dir__

  # Waits, in an instance without a function yet, until it is told which one it has (docs/add-a-runtime.md).
  def self.park(descriptor)
    told = IO.open(descriptor, &:read)
    exit!(0) if told.empty?
    folder, *variables = told.force_encoding(Encoding::UTF_8).split("\0")
    ENV.replace(variables.to_h { |variable| variable.split("=", 2) })
    Dir.chdir(folder)
  end

  def self.start
    park(ENV["SEPTET_PARK_FD"].to_i) if ENV["SEPTET_PARK_FD"]
    concurrency = (ENV["SEPTET_CONCURRENCY"] || "1").to_i
    threads = concurrency.negative? ? MOST_THREADS : [concurrency, 1].max
    link = Link.new((ENV.delete("SEPTET_LINK_FD") || "3").to_i, threaded: threads > 1)
    Output.attribute
    handler = load_handler(link)
    link.write(Frames.encode(Frames::READY, 0, "", %({"ok":true,"concurrency":#{threads},"version":1})))
    threads > 1 ? serve_threads(link, handler, threads) : serve_serial(link, handler)
  rescue LinkClosed
    exit!(0)
  end

  def self.load_handler(link)
    code = ENV["SEPTET_CODE"] || "/function/code"
    use_dependencies(ENV["SEPTET_DEPS"] || "/function/deps", code)
    $LOAD_PATH.unshift(code)
    Loading.load(ENV["SEPTET_HANDLER"] || "", code)
  rescue SystemExit, ScriptError, StandardError => e
    $stderr.write(trace_of(e))
    link.write(Frames.encode(Frames::READY, 0, "", describe(e, ok: false)))
    exit!(1)
  end

  # Gems that a Gemfile's build installed, without starting Bundler in each instance.
  def self.use_dependencies(deps, code)
    return unless File.directory?(deps)

    # What the build wrote down: gems of an index, of a path and of git, in the versions that it chose.
    list = File.join(deps, "load-path")
    File.foreach(list, chomp: true) { |folder| $LOAD_PATH << folder } if File.file?(list)
    ENV["BUNDLE_GEMFILE"] ||= File.join(code, "Gemfile")
    ENV["BUNDLE_PATH"] ||= deps
  end

  def self.serve_serial(link, handler)
    loop do
      if link.waiting.empty?
        return if link.draining

        link.pump
        next
      end
      # A call may have been cancelled while the one before it ran.
      link.poll
      call = link.waiting.shift
      run(call, handler) if call
    end
  end

  def self.serve_threads(link, handler, most)
    workers = Array.new(most) do
      Thread.new do
        loop { run(link.take, handler) }
      rescue LinkClosed
        nil # the main thread sees it too, and ends the process
      end
    end
    workers.each { |worker| worker.report_on_exception = false }
    link.pump until link.draining
    link.pump until link.calls.empty?
  end

  def self.run(call, handler)
    Thread.current[:septet_call] = call
    call.start
    handler.answer(call, Request.new(call))
  rescue Cancelled
    call.gone
  rescue LinkClosed, Interrupt, SignalException
    raise
  rescue Exception => e # rubocop:disable Lint/RescueException -- a handler's exit is no reason to take other calls down
    if call.cancelled
      call.gone
    else
      call.log("stderr", trace_of(e))
      call.fail_with(describe(e))
    end
  ensure
    Thread.current[:septet_call] = nil
  end

  def self.describe(error, **more)
    require "json"
    JSON.generate({ type: error.class.name.delete_prefix("Septet::"), message: text(error.message)[0, 4096], trace: trace_of(error)[-32_768..] || trace_of(error) }.merge(more))
  end

  # The trace without the runtime's own lines.
  def self.trace_of(error)
    lines = (error.backtrace || []).reject { |line| line.start_with?(HERE) || line.include?("/rubygems/") }
    name = error.class.name.delete_prefix("Septet::")
    "#{text(error.message)} (#{name})\n#{lines.map { |line| "    from #{line}\n" }.join}"
  end

  def self.text(message)
    message.dup.force_encoding("UTF-8").scrub
  end
end

Septet.start
