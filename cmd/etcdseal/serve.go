package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// serve carries out `etcdseal serve`: it runs the proxy until ctx ends. What is
// wrong before it serves goes to standard error as text, what happens from then
// on as JSON lines.
func serve(ctx context.Context, args []string, s streams) int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	file := flags.String("config", "", "read the configuration from `FILE`")
	if status, ok := parseFlags(flags, args, s); !ok {
		return status
	}
	if !required(flags, "config", *file, s) {
		return exitUnable
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	cfg, err := loadConfig(*file)
	if err != nil {
		return fail(s, err)
	}
	logger := newLogger(s.err, cfg.Log.Level)
	d, err := openDaemon(ctx, *file, cfg, logger, s.out)
	if err != nil {
		return fail(s, err)
	}
	defer d.close()
	if err := d.run(ctx, hangups); err != nil {
		logger.Error("stopped by a failure", "error", err.Error())
		return exitFound
	}
	logger.Info("stopped")
	return exitDone
}

// loadConfig reads a configuration file.
func loadConfig(file string) (*config.Config, error) { return config.Load(file, knownMethods()...) }

// knownMethods are the gRPC methods that the proxy knows.
func knownMethods() []string {
	var known []string
	for _, m := range wire.Methods() {
		known = append(known, m.Path)
	}
	return known
}

// newLogger returns a logger of JSON lines.
func newLogger(to io.Writer, level config.LogLevel) *slog.Logger {
	levels := map[config.LogLevel]slog.Level{
		config.LogDebug: slog.LevelDebug,
		config.LogInfo:  slog.LevelInfo,
		config.LogWarn:  slog.LevelWarn,
		config.LogError: slog.LevelError,
	}
	return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: levels[level]}))
}
